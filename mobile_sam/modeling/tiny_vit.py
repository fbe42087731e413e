"""TinyViT's blocks, smallest first (Wu et al. 2022, arXiv:2207.10666; the attention's biases are
LeViT's, Graham et al. 2021, arXiv:2104.01136).

Written here, and not taken from timm, so that a start does not import timm, and with it torchvision
and PyTorch's compiler. Tensors have the names of timm's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_EXPANSION = 4


class ConvNorm(nn.Sequential):
    """A convolution without bias and its batch norm, (B, in_dim, H, W) to (B, out_dim, H / stride,
    W / stride)."""

    def __init__(
        self, in_dim: int, out_dim: int, kernel: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_dim, out_dim, kernel, stride, kernel // 2, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(out_dim)


class PatchEmbed(nn.Module):
    """Pixels to cells of 4 x 4 of them, (B, 3, H, W) to (B, dim, H / 4, W / 4)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, dim // 2, kernel=3, stride=2)
        self.act = nn.GELU()
        self.conv2 = ConvNorm(dim // 2, dim, kernel=3, stride=2)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.conv2(self.act(self.conv1(pixels)))


class MBConv(nn.Module):
    """An inverted bottleneck, (B, dim, H, W) to the same. What it adds is zero until it is
    trained."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        inner = _EXPANSION * dim
        self.conv1 = ConvNorm(dim, inner)
        self.act1 = nn.GELU()
        self.conv2 = ConvNorm(inner, inner, kernel=3, groups=inner)
        self.act2 = nn.GELU()
        self.conv3 = ConvNorm(inner, dim)
        self.act3 = nn.GELU()
        nn.init.zeros_(self.conv3.bn.weight)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.act2(self.conv2(self.act1(self.conv1(x))))
        return self.act3(x + self.conv3(inner))


class Attention(nn.Module):
    """Attention among the cells of a window, (B, window * window, dim) to the same.

    How far two cells are apart, in rows and in columns, has a learned bias for each head.
    """

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        cells = torch.arange(window * window)
        rows, columns = ((of[:, None] - of).abs() for of in (cells // window, cells % window))
        # int64 (window * window, the same): which bias each pair of cells has.
        self.register_buffer("bias_index", rows * window + columns, persistent=False)
        self.bias_index: Tensor

    def biases(self) -> Tensor:
        """Returns what is added to the attention, float (heads, window * window, the same)."""
        return self.attention_biases[:, self.bias_index]

    def forward(self, x: Tensor) -> Tensor:
        each = self.qkv(self.norm(x)).unflatten(2, (self.heads, 3, -1)).transpose(1, 2)
        query, key, value = each.unbind(3)
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=self.biases())
        return self.proj(found.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """A norm and two layers, of each cell for itself, (..., dim) to the same."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, _EXPANSION * dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(_EXPANSION * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(self.norm(x))))


class TinyVitBlock(nn.Module):
    """Attention within windows, a convolution, and the MLP, (B, H, W, dim) to the same.

    Windows that leave the map are filled with zeros, which are attended to as well.
    """

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = Attention(dim, heads, window)
        self.mlp = Mlp(dim)
        self.local_conv = ConvNorm(dim, dim, kernel=3, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        height, width, side = x.shape[1], x.shape[2], self.window
        down, across = -(-height // side), -(-width // side)
        filled = F.pad(x, (0, 0, 0, across * side - width, 0, down * side - height))
        # (B, down, across, side, side, dim), and then a window's cells in a row
        windows = filled.unflatten(2, (across, side)).unflatten(1, (down, side)).transpose(2, 3)
        attended = self.attn(windows.flatten(0, 2).flatten(1, 2))
        windows = attended.unflatten(0, (-1, down, across)).unflatten(3, (side, side))
        whole = windows.transpose(2, 3).flatten(3, 4).flatten(1, 2)
        x = x + whole[:, :height, :width]
        x = self.local_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + self.mlp(x)
