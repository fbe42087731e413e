"""Non-maximum suppression: of boxes that overlap much, the best one stays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def non_maximum_suppression(
    boxes: NDArray[np.float32], scores: NDArray[np.floating], most: float
) -> NDArray[np.int64]:
    """Goes through the boxes, the highest score first, and drops what overlaps with one that stays.

    Args:
        boxes: float32 (N, 4), x, y, x, y, in pixels. They are taken to end at their last pixel, as
            SAM's do, so that the same ones stay.
        scores: (N,); of equal ones the first is the higher.
        most: IoU, above which a box is dropped.

    Returns:
        The indices of the K boxes that stay, the highest score first, int64 (K,).
    """
    x0, y0, x1, y1 = (boxes - np.array([0, 0, 1, 1], np.float32)).T
    areas = (x1 - x0) * (y1 - y0)
    rest = np.argsort(-scores, kind="stable")
    stays = []
    while len(rest):
        best, rest = rest[0], rest[1:]
        stays.append(best)
        across = np.minimum(x1[best], x1[rest]) - np.maximum(x0[best], x0[rest])
        down = np.minimum(y1[best], y1[rest]) - np.maximum(y0[best], y0[rest])
        shared = across.clip(0) * down.clip(0)
        # A mask one pixel wide has no area here: what is no number is no overlap.
        with np.errstate(invalid="ignore"):
            overlap = shared / (areas[best] + areas[rest] - shared)
        rest = rest[~(overlap.astype(np.float64) > most)]  # torchvision's comparison, to the bit
    return np.array(stays, np.int64)
