"""Maps with their channels last, (B, H, W, C), or just their cells, (B, H * W, C): what modules for
(B, C, H, W) do to them, without laying them out anew."""

from collections.abc import Callable

from torch import Tensor, nn


def channels_first(module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Applies what wants (B, C, H, W) to (B, H, W, C); the memory stays as it is."""
    return module(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class LayerNorm2d(nn.LayerNorm):
    """Normalises over the channels, (B, C, H, W) to the same."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def normed(norm: nn.Module, cells: Tensor) -> Tensor:
    """Applies a `LayerNorm2d` to (..., C)."""
    assert isinstance(norm, LayerNorm2d)
    return nn.LayerNorm.forward(norm, cells)
