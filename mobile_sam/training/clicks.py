"""Clicks that correct: what a user does who sees where a mask is wrong.

Kirillov et al. 2023, arXiv:2304.02643, appendix A, "Training algorithm".
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mobile_sam.modeling import PointLabel
from mobile_sam.segments import inner_points


def random_clicks(
    logits: Tensor, targets: Tensor, image_size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Chooses a cell for each object at random among those where its mask is wrong.

    Where nothing is wrong, one among those of the object.

    Args:
        logits: float (N, m, m).
        targets: float (N, m, m), the share of each cell that is the object.
        image_size: side of the padded input, in pixels.
        generator: of the CPU.

    Returns:
        Points, float (N, 1, 2), x and y in pixels of the scaled picture, and labels, int64 (N, 1).
    """
    wanted = targets > 0.5
    wrong = (logits > 0) != wanted
    is_right = ~wrong.flatten(1).any(1)
    choices = torch.where(is_right[:, None, None], targets > 0, wrong).flatten(1).float().cpu()
    cells = torch.multinomial(choices, 1, generator=generator).to(logits.device)
    side = logits.shape[-1]
    xy = torch.stack([cells % side, cells // side], dim=-1)
    points = (xy + 0.5) * (image_size / side) - 0.5
    on_object = (targets > 0.5).flatten(1).gather(1, cells) | is_right[:, None]
    labels = torch.where(on_object, PointLabel.FOREGROUND, PointLabel.BACKGROUND)
    return points.to(targets.dtype), labels


def central_click(
    found: NDArray[np.bool_], wanted: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], int] | None:
    """Chooses the pixel in the middle of what is most wrong, as evaluations of clicks do.

    Args:
        found: bool (H, W).
        wanted: bool (H, W).

    Returns:
        The pixel, x and y, and 1 if the object is there, 0 if not; None if nothing is wrong.
    """
    wrong = found != wanted
    if not wrong.any():
        return None
    (point,) = inner_points(wrong, 1)
    x, y = point.astype(int)
    return point, int(wanted[y, x])
