"""Encodes the picture and not its padding, as if the padding had been there.

A camera's picture is not square: at 4:3 a quarter of the padded input is padding, at 16:9 it is
44 %. What the encoder makes of padding hardly depends on the picture beside it, so it is computed
once, of an empty input, and put beside the picture wherever a layer looks beyond its edge: as the
neighbours of a convolution and as the keys of an attention window. Left out is only what the
picture does to its padding and that does back to the picture; `margin` computes more of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from timm.models.tiny_vit import TinyVitBlock
from torch import Tensor, nn
from torch.nn import functional as F

from mobile_sam.modeling.config import SamConfig
from mobile_sam.modeling.image_encoder import (
    AttentionStage,
    ConvolutionStage,
    Downsample,
    ImageEncoder,
)

# Puts what lies right of and below a map (B, C, H, W) beside it, up to a number of rows and
# columns. It is called in the same order each time.
_Extend = Callable[[Tensor, int, int], Tensor]


class PictureEncoder(nn.Module):
    """An image encoder for pictures of one size; shares the weights of the one it is made of."""

    def __init__(
        self,
        encoder: ImageEncoder,
        config: SamConfig,
        picture_hw: tuple[int, int],
        margin: int = 0,
    ) -> None:
        """Encodes an empty input and keeps what will lie beside the pictures.

        Args:
            encoder: in evaluation mode, with the weights it will have.
            config: of the model.
            picture_hw: height and width of the pictures, in pixels, at most `image_size`.
            margin: pixels of padding that are computed along with the picture.
        """
        super().__init__()
        self.encoder = encoder
        size, stride = config.image_size, config.stride
        height, width = (
            min(size, -(-(side + (margin if side < size else 0)) // stride) * stride)
            for side in picture_hw
        )
        self.region_hw = (height, width)
        self.cells = config.embedding_size
        parameter = next(encoder.parameters())
        empty = torch.zeros(1, 3, size, size, device=parameter.device, dtype=parameter.dtype)
        places = itertools.count()

        def keep(x: Tensor, rows: int, columns: int) -> Tensor:
            self._keep_strips(next(places), x, size)
            return x

        with torch.no_grad():
            self._encode(empty.contiguous(memory_format=torch.channels_last), keep)

    def _keep_strips(self, place: int, whole: Tensor, size: int) -> None:
        """Keeps what lies beside the picture at one place of the network: a strip at its right, as
        high as the picture, and one below, as wide as the input."""
        height, width = (side * whole.shape[-1] // size for side in self.region_hw)
        for name, strip in (
            ("right", whole[..., :height, width:]),
            ("below", whole[..., height:, :]),
        ):
            kept = strip.clone(memory_format=torch.channels_last)
            self.register_buffer(f"{name}_{place}", kept, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Encodes pictures.

        Args:
            pixels: float (B, 3, *region_hw), normalised RGB, zeros where the picture ends.

        Returns:
            float (B, embedding_dim, embedding_size, embedding_size), as of the padded input.
        """
        places = itertools.count()

        def extend(x: Tensor, rows: int, columns: int) -> Tensor:
            place = next(places)
            right, below = getattr(self, f"right_{place}"), getattr(self, f"below_{place}")
            height, width = x.shape[-2:]
            if columns > width:
                beside = right[..., : columns - width].expand(len(x), -1, -1, -1)
                x = torch.cat([x, beside], dim=3)
            if rows > height:
                beneath = below[..., : rows - height, :columns].expand(len(x), -1, -1, -1)
                x = torch.cat([x, beneath], dim=2)
            return x

        return self._encode(pixels, extend)

    def _encode(self, pixels: Tensor, extend: _Extend) -> Tensor:
        """What `ImageEncoder` does, with `extend` wherever a layer looks beyond the edge.

        A convolution of stride 2 never does, as all maps before one have even sides.
        """
        x = self.encoder.patch_embed(pixels)
        for stage in self.encoder.layers:
            assert isinstance(stage, (ConvolutionStage, AttentionStage))
            for block in stage.blocks:
                if isinstance(block, TinyVitBlock):
                    x = _attention_block(block, x, extend)
                else:
                    x = _cropped(block(_haloed(x, extend)), x)
            downsample = stage.downsample
            if isinstance(downsample, Downsample) and downsample.conv2.conv.stride == (1, 1):
                x = _cropped(downsample(_haloed(x, extend)), x)
            else:
                x = downsample(x)
        x = _cropped(self.encoder.neck(_haloed(x, extend)), x)
        return extend(x, self.cells, self.cells)


def _cropped(x: Tensor, like: Tensor) -> Tensor:
    height, width = like.shape[-2:]
    return x[..., :height, :width]


def _haloed(x: Tensor, extend: _Extend) -> Tensor:
    """One cell more to each side, for a kernel of 3."""
    height, width = x.shape[-2:]
    return extend(x, height + 1, width + 1)


def _attention_block(block: TinyVitBlock, x: Tensor, extend: _Extend) -> Tensor:
    """What timm's block does, (B, C, H, W) to the same."""
    height, width = x.shape[-2:]
    window = block.window_size
    rows, columns = (-(-side // window) * window for side in (height, width))
    around = extend(x, rows, columns)
    # Windows that leave even the padded input are filled with zeros, which timm does as well.
    missing = (0, columns - around.shape[3], 0, rows - around.shape[2])
    around = F.pad(around, missing).permute(0, 2, 3, 1)
    windows = around.unflatten(2, (-1, window)).unflatten(1, (-1, window)).transpose(2, 3)
    attended = block.attn(windows.flatten(0, 2).flatten(1, 2))
    attended = attended.unflatten(1, (window, window)).unflatten(0, windows.shape[:3])
    attended = attended.transpose(2, 3).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)
    x = x + _cropped(attended, x)
    x = _cropped(block.local_conv(_haloed(x, extend)), x)
    tokens = x.permute(0, 2, 3, 1)
    return (tokens + block.mlp(tokens)).permute(0, 3, 1, 2)
