"""Encodes the picture and not its padding, as if the padding had been there.

A camera's picture is not square: at 4:3 a quarter of the padded input is padding, at 16:9 it is
44 %. What the encoder makes of padding hardly depends on the picture above it, so it is computed
once, of an empty input, and put below the picture wherever a layer looks beyond its edge: as the
neighbours of a convolution and as the keys of an attention window. Left out is only what the
picture does to its padding and that does back to the picture; `margin` computes more of it.

Only padding below is left out, not that at the right of a portrait picture: what was measured was
measured for landscape ones (docs/performance.md).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from timm.models.tiny_vit import TinyVitBlock
from torch import Tensor, nn
from torch.nn import functional as F

from mobile_sam.modeling.config import SamConfig
from mobile_sam.modeling.image_encoder import AttentionStage, Downsample, ImageEncoder

# Puts what lies below a map (B, H, W, C) under it, up to a number of rows. It is called in the
# same order each time.
_Extend = Callable[[Tensor, int], Tensor]


class PictureEncoder(nn.Module):
    """An image encoder for pictures of one height, as wide as the input; shares the weights of the
    one it is made of."""

    def __init__(self, encoder: ImageEncoder, config: SamConfig, height: int, margin: int) -> None:
        """Encodes an empty input and keeps what will lie below the pictures.

        Args:
            encoder: in evaluation mode, with the weights it will have.
            config: of the model.
            height: of the pictures, in pixels, at most `image_size`.
            margin: pixels of padding that are computed along with the picture.
        """
        super().__init__()
        self.encoder = encoder
        size, stride = config.image_size, config.stride
        padded = height + (margin if height < size else 0)
        self.region_hw = (min(size, -(-padded // stride) * stride), size)
        self.cells = config.embedding_size
        if self.region_hw[0] < size:
            self._keep_what_lies_below(size)

    def _keep_what_lies_below(self, size: int) -> None:
        encoder = self.encoder
        parameter = next(encoder.parameters())
        empty = torch.zeros(1, 3, size, size, device=parameter.device, dtype=parameter.dtype)
        places = itertools.count()

        def keep(x: Tensor, rows: int) -> Tensor:
            first = self.region_hw[0] * x.shape[1] // size
            self.register_buffer(f"below_{next(places)}", x[:, first:].clone(), persistent=False)
            return x

        with torch.no_grad():
            self._encode(empty.contiguous(memory_format=torch.channels_last), keep)

    def forward(self, pixels: Tensor) -> Tensor:
        """Encodes pictures.

        Args:
            pixels: float (B, 3, H, W), of the size `region_hw`; normalised RGB, zeros where the
                picture ends.

        Returns:
            float (B, embedding_dim, embedding_size, embedding_size), as of the padded input.
        """
        height, width = self.region_hw
        if height == width:
            return self._encode(pixels, lambda x, rows: x)
        places = itertools.count()

        def extend(x: Tensor, rows: int) -> Tensor:
            below = getattr(self, f"below_{next(places)}")
            count, height, width, _ = x.shape
            if rows <= height:
                return x
            beneath = below[:, : rows - height].expand(count, -1, -1, -1)
            # As rows of cells, because OpenVINO would lay maps out anew here.
            cells = torch.cat([x.flatten(1, 2), beneath.flatten(1, 2)], dim=1)
            return cells.unflatten(1, (-1, width))

        return self._encode(pixels, extend)

    def _encode(self, pixels: Tensor, extend: _Extend) -> Tensor:
        """What `ImageEncoder` does, with `extend` wherever a layer looks beyond the edge.

        But for the first stage: its convolutions look no farther than the margin. And a
        convolution of stride 2 never does, as all maps before one have even sides.
        """
        first, *stages = self.encoder.layers
        x = first(self.encoder.patch_embed(pixels)).permute(0, 2, 3, 1)
        for stage in stages:
            assert isinstance(stage, AttentionStage)
            for block in stage.blocks:
                x = _attention_block(block, x, extend)
            downsample = stage.downsample
            if isinstance(downsample, Downsample):
                if downsample.conv2.conv.stride == (1, 1):
                    x = _convolved(downsample, x, extend)
                else:
                    x = _channels_first(downsample, x)
        x = _convolved(self.encoder.neck, x, extend)
        return extend(x, self.cells).permute(0, 3, 1, 2)


def _channels_first(module: nn.Module, x: Tensor) -> Tensor:
    """Applies what wants (B, C, H, W) to (B, H, W, C); the memory stays as it is."""
    return module(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _cropped(x: Tensor, rows: int) -> Tensor:
    """The first rows of a map (B, H, W, C)."""
    width = x.shape[2]
    return x.flatten(1, 2)[:, : rows * width].unflatten(1, (rows, width))


def _convolved(module: nn.Module, x: Tensor, extend: _Extend) -> Tensor:
    """Applies a convolution of kernel 3 and stride 1, which looks one row farther."""
    rows = x.shape[1]
    return _cropped(_channels_first(module, extend(x, rows + 1)), rows)


def _attention_block(block: TinyVitBlock, x: Tensor, extend: _Extend) -> Tensor:
    """What timm's block does, (B, H, W, C) to the same."""
    height, width = x.shape[1:3]
    window = block.window_size
    rows, columns = (-(-side // window) * window for side in (height, width))
    around = extend(x, rows)
    # Windows that leave even the padded input are filled with zeros, which timm does as well.
    around = F.pad(around, (0, 0, 0, columns - width, 0, rows - around.shape[1]))
    windows = around.unflatten(2, (-1, window)).unflatten(1, (-1, window)).transpose(2, 3)
    attended = block.attn(windows.flatten(0, 2).flatten(1, 2))
    attended = attended.unflatten(1, (window, window)).unflatten(0, windows.shape[:3])
    attended = attended.transpose(2, 3).flatten(3, 4).flatten(1, 2)[:, :, :width]
    tokens = x.flatten(1, 2) + _cropped(attended, height).flatten(1, 2)
    x = _convolved(block.local_conv, tokens.unflatten(1, (height, width)), extend)
    tokens = x.flatten(1, 2)
    return (tokens + block.mlp(tokens)).unflatten(1, (height, width))
