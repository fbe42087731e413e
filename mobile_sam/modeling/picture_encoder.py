"""Encodes the picture and not its padding, as if the padding had been there.

A camera's picture is not square: at 4:3 a quarter of the padded input is padding, at 16:9 it is
44 %. What the encoder makes of padding hardly depends on the picture above it, so it is computed
once, of an empty input, and put below the picture wherever a layer looks beyond its edge: as the
neighbours of a convolution and as the keys of an attention window. Left out is only what the
picture does to its padding and that does back to the picture; `margin` computes more of it.

Only padding below is left out, not that at the right of a portrait picture: what was measured was
measured for landscape ones (docs/performance.md).

Maps are (B, H, W, C) here, and their cells, row by row, (B, H * W, C).
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobile_sam.modeling.channels_last import channels_first, normed
from mobile_sam.modeling.config import SamConfig
from mobile_sam.modeling.image_encoder import AttentionStage, Downsample, ImageEncoder
from mobile_sam.modeling.tiny_vit import Attention, ConvNorm, TinyVitBlock

_PATCH = 4  # pixels to a cell of the first stage


def region_size(config: SamConfig, height: int, margin: int) -> tuple[int, int]:
    """Returns height and width, in pixels, of what is encoded for pictures of a height: all that a
    `PictureEncoder` depends on but for its weights; arguments as there."""
    size, stride = config.image_size, config.stride
    padded = height + (margin if height < size else 0)
    return min(size, -(-padded // stride) * stride), size


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
        size = config.image_size
        self.region_hw = region_size(config, height, margin)
        self.cells = config.embedding_size
        self._names: dict[nn.Module, str] = {}
        if self.region_hw[0] < size:
            self._keep_what_lies_below(config)
        cell = _PATCH
        windows = []
        for step, window in zip(config.encoder_strides, config.encoder_windows[1:], strict=True):
            cell *= step
            windows.append(Windows(self.region_hw[0] // cell, size // cell, window))
        self.windows = nn.ModuleList(windows).to(next(encoder.parameters()).device)

    def _keep_what_lies_below(self, config: SamConfig) -> None:
        size = config.image_size
        parameter = next(self.encoder.parameters())
        empty = torch.zeros(1, 3, size, size, device=parameter.device, dtype=parameter.dtype)
        whole = _Recorder(self.encoder, config, size, 0)
        with torch.no_grad():
            whole(empty.contiguous(memory_format=torch.channels_last))
        for number, (module, x) in enumerate(whole.maps.items()):
            first = self.region_hw[0] * x.shape[1] // size
            self._names[module] = f"below_{number}"
            cells = x[:, first:].flatten(1, 2).clone()
            self.register_buffer(self._names[module], cells, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Encodes pictures.

        Args:
            pixels: float (B, 3, H, W), of the size `region_hw`; normalised RGB, zeros where the
                picture ends.

        Returns:
            float (B, embedding_dim, embedding_size, embedding_size), as of the padded input.
        """
        first, *stages = self.encoder.layers
        x = first(self.encoder.patch_embed(pixels)).permute(0, 2, 3, 1)
        for stage, windows in zip(stages, self.windows, strict=True):
            assert isinstance(stage, AttentionStage) and isinstance(windows, Windows)
            for block in stage.blocks:
                assert isinstance(block, TinyVitBlock)
                x = self._block(block, windows, x)
            if isinstance(stage.downsample, Downsample):
                x = self._downsampled(stage.downsample, x)
        conv1, norm1, conv2, norm2 = self.encoder.neck
        x = channels_first(conv1, x)
        cells = normed(norm1, x.flatten(1, 2))
        x = self._convolved(conv2, cells.unflatten(1, x.shape[1:3]))
        cells = normed(norm2, x.flatten(1, 2))
        x = cells.unflatten(1, x.shape[1:3])
        cells = torch.cat([cells, *self._below(self.encoder, x, self.cells - x.shape[1])], dim=1)
        return cells.unflatten(1, (self.cells, self.cells)).permute(0, 3, 1, 2)

    def _below(self, module: nn.Module, x: Tensor, rows: int) -> list[Tensor]:
        """Returns the cells of the first rows of what lies below the map that a module gets, if
        there are any; of the encoder, below its result.

        The first stage needs none: it looks no farther than the margin. Nor does a convolution of
        stride 2, which never looks beyond the edge, as all maps before one have even sides.
        """
        if rows == 0 or module not in self._names:
            return []
        cells: Tensor = getattr(self, self._names[module])[:, : rows * x.shape[2]]
        return [cells.expand(len(x), -1, -1)]

    def _block(self, block: TinyVitBlock, windows: Windows, x: Tensor) -> Tensor:
        """The block, with what lies below."""
        cells = x.flatten(1, 2)
        # In the last cell, what fills windows that leave even the padded input.
        nothing = torch.zeros_like(cells[:, :1])
        around = torch.cat([cells, *self._below(block, x, windows.rows_below), nothing], dim=1)
        cells = cells + _attended(block.attn, windows, around)
        x = self._convolved_norm(block.local_conv, cells.unflatten(1, x.shape[1:3]))
        cells = x.flatten(1, 2)
        return (cells + block.mlp(cells)).unflatten(1, x.shape[1:3])

    def _downsampled(self, module: Downsample, x: Tensor) -> Tensor:
        """The downsampling, with what lies below."""
        if module.conv2.conv.stride != (1, 1):
            return channels_first(module, x)
        x = channels_first(nn.Sequential(module.conv1, module.activation), x)
        x = self._convolved_norm(module.conv2, x)
        return channels_first(nn.Sequential(module.activation, module.conv3), x)

    def _convolved_norm(self, module: ConvNorm, x: Tensor) -> Tensor:
        """A convolution and its norm, with what lies below."""
        return channels_first(module.bn, self._convolved(module.conv, x))

    def _convolved(self, conv: nn.Module, x: Tensor) -> Tensor:
        """A convolution of kernel 3, with what lies below."""
        assert isinstance(conv, nn.Conv2d) and conv.bias is None
        below = self._below(conv, x, 1)
        if not below:
            return channels_first(conv, x)
        # As cells, because OpenVINO would lay maps out anew here.
        above = torch.zeros_like(below[0])
        x = torch.cat([above, x.flatten(1, 2), *below], 1).unflatten(1, (-1, x.shape[2]))
        aside = partial(F.conv2d, weight=conv.weight, padding=(0, 1), groups=conv.groups)
        return channels_first(aside, x)


class _Recorder(PictureEncoder):
    """Encodes the whole input, and keeps the maps of the modules that look beyond an edge."""

    def __init__(self, encoder: ImageEncoder, config: SamConfig, height: int, margin: int) -> None:
        super().__init__(encoder, config, height, margin)
        self.maps: dict[nn.Module, Tensor] = {}

    def _below(self, module: nn.Module, x: Tensor, rows: int) -> list[Tensor]:
        self.maps[module] = x
        return []


class Windows(nn.Module):
    """Which cells of a map attend to each other."""

    def __init__(self, height: int, width: int, size: int) -> None:
        """Lays windows over the upper part of a square map.

        Args:
            height: of the part, in cells.
            width: of the map, in cells.
            size: of a window's sides, in cells.
        """
        super().__init__()
        down, across = -(-height // size), -(-width // size)
        rows = min(down * size, width)
        self.size, self.rows_below = size, rows - height
        cells = torch.arange(rows * width).unflatten(0, (rows, width))
        # Where in the map's cells each of a window's is; an empty one follows the last.
        beside = (0, across * size - width, 0, down * size - rows)
        filled = F.pad(cells, beside, value=rows * width)
        into = filled.unflatten(1, (-1, size)).unflatten(0, (-1, size)).transpose(1, 2)
        self.register_buffer("into", into.flatten(), persistent=False)
        self.register_buffer("out_of", into.flatten().argsort()[: height * width], persistent=False)
        self.into: Tensor
        self.out_of: Tensor

    def divided(self, cells: Tensor) -> Tensor:
        """Returns the windows' cells, (B * windows, size * size, C)."""
        return cells.index_select(1, self.into).unflatten(1, (-1, self.size**2)).flatten(0, 1)

    def joined(self, cells: Tensor, count: int) -> Tensor:
        """Returns the map's cells, (B, height * width, C), of those of `count` maps' windows."""
        return cells.unflatten(0, (count, -1)).flatten(1, 2).index_select(1, self.out_of)


def _attended(attention: Attention, windows: Windows, around: Tensor) -> Tensor:
    """The attention of all windows of a map, whose cells, what is below them and an empty one are
    `around`, (B, N, C); returns what the map's cells get, (B, height * width, C).

    Each cell is projected once, and queries, keys and values by themselves: so nothing has to be
    taken apart.
    """
    heads = attention.heads
    x = attention.norm(around)
    query, key, value = (
        windows.divided(F.linear(x, weight.flatten(0, 1), bias.flatten()))
        .unflatten(2, (heads, -1))
        .transpose(1, 2)
        for weight, bias in zip(
            attention.qkv.weight.unflatten(0, (heads, 3, -1)).unbind(1),
            attention.qkv.bias.unflatten(0, (heads, 3, -1)).unbind(1),
            strict=True,
        )
    )
    found = F.scaled_dot_product_attention(query, key, value, attn_mask=attention.biases())
    return attention.proj(windows.joined(found.transpose(1, 2).flatten(2), len(around)))
