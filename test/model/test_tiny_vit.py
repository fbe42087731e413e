"""TinyViT's blocks, against timm's with the same weights."""

import pytest
import torch
from timm.models import tiny_vit as oracle
from torch import nn

from mobile_sam.modeling import tiny_vit


def with_random_weights(theirs: nn.Module, ours: nn.Module) -> None:
    """Gives both modules the same weights and statistics, none of them as at the start."""
    torch.manual_seed(0)
    state = theirs.state_dict()
    for name, value in state.items():
        if name.endswith("running_var"):
            state[name] = torch.rand_like(value) + 0.1
        elif value.is_floating_point():
            state[name] = torch.randn_like(value)
    theirs.load_state_dict(state)
    ours.load_state_dict(state)


@pytest.mark.parametrize("is_training", [False, True])
@pytest.mark.parametrize(
    ("height", "width", "window", "heads"),
    [(14, 14, 7, 2), (17, 23, 7, 4), (14, 14, 14, 5), (5, 3, 7, 2)],
    ids=["whole windows", "filled windows", "one window", "less than a window"],
)
def test_block_that_attends(
    height: int, width: int, window: int, heads: int, is_training: bool
) -> None:
    dim = 8 * heads
    theirs = oracle.TinyVitBlock(dim, heads, window).train(is_training)
    ours = tiny_vit.TinyVitBlock(dim, heads, window).train(is_training)
    with_random_weights(theirs, ours)
    x = torch.randn(2, height, width, dim)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())  # what norms learnt as well


@pytest.mark.parametrize("is_training", [False, True])
@pytest.mark.parametrize(
    ("ours", "theirs", "channels"),
    [
        (tiny_vit.PatchEmbed(16), oracle.PatchEmbed(3, 16, nn.GELU), 3),
        (tiny_vit.MBConv(16), oracle.MBConv(16, 16, 4.0, nn.GELU, 0.0), 16),
    ],
    ids=["patch embedding", "inverted bottleneck"],
)
def test_convolutions(ours: nn.Module, theirs: nn.Module, channels: int, is_training: bool) -> None:
    with_random_weights(theirs, ours)
    x = torch.randn(2, channels, 12, 20)
    torch.testing.assert_close(
        ours.train(is_training)(x.clone()), theirs.train(is_training)(x.clone())
    )
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_begins_as_theirs() -> None:
    """What is random at first, is drawn in the same order; what is not, is the same."""
    pairs = [
        (lambda: tiny_vit.MBConv(8), lambda: oracle.MBConv(8, 8, 4.0, nn.GELU, 0.0)),
        (lambda: tiny_vit.TinyVitBlock(16, 2, 7), lambda: oracle.TinyVitBlock(16, 2, 7)),
    ]
    for ours, theirs in pairs:
        torch.manual_seed(3)
        wanted = theirs().state_dict()
        torch.manual_seed(3)
        torch.testing.assert_close(ours().state_dict(), wanted)
