"""From low-resolution logits to masks of the image's size, and what is measured on masks."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F


@lru_cache(maxsize=16)
def resize_matrix(mask_size: int, image_size: int, scaled: int, original: int) -> Tensor:
    """Returns SAM's two resizes of logits along one axis, as a matrix.

    SAM interpolates the logits bilinearly to the padded input, cuts off the padding, and
    interpolates again to the size of the image. Both are linear and separable, so that one
    matrix for each axis does all of it at once.

    Args:
        mask_size: logits along the axis.
        image_size: pixels of the padded input.
        scaled: pixels of the picture within it.
        original: pixels of the image.

    Returns:
        float32 (original, mask_size).
    """
    identity = torch.eye(mask_size)[:, None]
    padded = F.interpolate(identity, image_size, mode="linear", align_corners=False)
    picture = padded[..., :scaled]
    return F.interpolate(picture, original, mode="linear", align_corners=False)[:, 0].T.contiguous()


def masks_from_logits(
    logits: Tensor,
    image_size: int,
    scaled_hw: tuple[int, int],
    original_hw: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Computes masks of the image's size, each only where its object is.

    Args:
        logits: float (N, m, m), over the padded input.
        image_size: side of the padded input, in pixels.
        scaled_hw: height and width of the picture within it.
        original_hw: height and width of the image.

    Returns:
        Masks, bool (N, H, W), and their tight half-open boxes, int64 (N, 4) as x_min, y_min,
        x_max, y_max, zeros where a mask is empty.
    """
    height, width = original_hw
    m = logits.shape[-1]
    down = resize_matrix(m, image_size, scaled_hw[0], height).to(logits)
    across = resize_matrix(m, image_size, scaled_hw[1], width).to(logits)
    masks = torch.zeros(len(logits), height, width, dtype=torch.bool, device=logits.device)
    boxes = torch.zeros(len(logits), 4, dtype=torch.int64)
    positive = logits > 0
    # Interpolated logits are positive only where a logit they are made of is.
    reach_down, reach_across = (down > 0).float(), (across > 0).float()
    rows = (positive.any(2).float() @ reach_down.T > 0).cpu()
    columns = (positive.any(1).float() @ reach_across.T > 0).cpu()
    for i in range(len(logits)):
        top, bottom = _span(rows[i])
        left, right = _span(columns[i])
        if top == bottom or left == right:
            continue
        part = (down[top:bottom] @ logits[i] @ across[left:right].T) > 0
        y0, y1 = _span(part.any(1).cpu())
        x0, x1 = _span(part.any(0).cpu())
        if y0 == y1:
            continue
        masks[i, top:bottom, left:right] = part
        boxes[i] = torch.tensor([left + x0, top + y0, left + x1, top + y1])
    return masks, boxes


def _span(present: Tensor) -> tuple[int, int]:
    """Returns the half-open range from the first to the last True, or (0, 0)."""
    indices = present.nonzero()
    return (int(indices[0]), int(indices[-1]) + 1) if len(indices) else (0, 0)


def stability(logits: Tensor, offset: float = 1.0) -> Tensor:
    """Returns the IoU of each mask cut a little above and a little below 0.

    Kirillov et al. 2023, arXiv:2304.02643, appendix B. On low-resolution logits.

    Args:
        logits: float (N, m, m).
        offset: how far above and below.

    Returns:
        float32 (N,), 0 where the mask is empty.
    """
    strict = (logits > offset).sum((-1, -2))
    lax = (logits > -offset).sum((-1, -2))
    return strict / lax.clamp(min=1)
