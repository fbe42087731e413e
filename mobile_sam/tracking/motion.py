"""How objects move between two images: similarities, found by optical flow.

A motion is a matrix, float64 (2, 3), from pixels of the earlier image to those of the later one.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

Motion = NDArray[np.float64]

_CORNERS = 60
_CORNER_DISTANCE = 5
_RIM = 3  # pixels at an object's outline, where what is behind it would be followed as well
_LEAST_INSIDE = 30
_WINDOW = (15, 15)
_LEVELS = 2
_THERE_AND_BACK = 1.0  # pixels that a point may be off after it was followed back
_OFF = 1.5  # pixels that a point may be off the motion that most agree upon
_LEAST_POINTS = 4
_LEAST_DENSE = 16  # pixels a side
_SCALE = 1.25  # that an object may grow or shrink from one image to the next


def still() -> Motion:
    """Returns the motion of what does not move."""
    return np.eye(2, 3)


def shift(x: float, y: float) -> Motion:
    """Returns the motion by (x, y) pixels."""
    return np.array([[1, 0, x], [0, 1, y]], float)


def compose(then: Motion, first: Motion) -> Motion:
    """Returns one motion after the other."""
    return (_square(then) @ _square(first))[:2]


def _square(motion: Motion) -> Motion:
    return np.vstack([motion, [0, 0, 1]])


def times(motion: Motion, factor: float, centre: tuple[float, float]) -> Motion:
    """Returns what becomes of a similarity in `factor` times its time, at a constant rate.

    Args:
        motion: a similarity.
        factor: 0 or greater.
        centre: x, y of the object: it goes on straight, and turns and grows about itself.
    """
    angle = factor * math.atan2(motion[1, 0], motion[0, 0])
    scale = math.hypot(motion[0, 0], motion[1, 0]) ** factor
    x, y = centre
    step = factor * (motion @ (x, y, 1) - centre)
    turned = scale * np.array(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    )
    return np.column_stack([turned, step + centre - turned @ centre])


def follow(
    before: NDArray[np.uint8], after: NDArray[np.uint8], mask: NDArray[np.bool_]
) -> Motion | None:
    """Returns the similarity by which what is in a mask moves, as most of its corners say.

    Corners are followed there and back by Lucas and Kanade's method in pyramids, and those that do
    not come back where they were do not count.

    Args:
        before: uint8 (h, w), grey.
        after: the same, later.
        mask: bool (h, w), the object before.

    Returns:
        The motion, or None if too few corners agree.
    """
    inside = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=_RIM)
    if np.count_nonzero(inside) < _LEAST_INSIDE:
        inside = mask.astype(np.uint8)
    corners = cv2.goodFeaturesToTrack(before, _CORNERS, 0.01, _CORNER_DISTANCE, mask=inside)
    if corners is None:
        return None
    there, found, _ = _flow(before, after, corners)
    back, found_back, _ = _flow(after, before, there)
    error = np.linalg.norm((back - corners)[:, 0], axis=1)
    good = (found[:, 0] > 0) & (found_back[:, 0] > 0) & (error < _THERE_AND_BACK)
    if np.count_nonzero(good) < _LEAST_POINTS:
        return None
    motion, agree = cv2.estimateAffinePartial2D(
        corners[good], there[good], method=cv2.RANSAC, ransacReprojThreshold=_OFF
    )
    if motion is None or np.count_nonzero(agree) < _LEAST_POINTS:
        return None
    scale = math.hypot(motion[0, 0], motion[1, 0])
    return motion if 1 / _SCALE < scale < _SCALE else None


def bend(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """Returns where each pixel of an image was before, as dense optical flow says; None if the
    images are too small.

    Args:
        before: uint8 (h, w), grey.
        after: the same, later.

    Returns:
        x, y in `before` of each pixel of `after`: float32 (h, w, 2).
    """
    if min(after.shape) < _LEAST_DENSE:
        return None
    dense = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    flow = np.zeros((*after.shape, 2), np.float32)  # what it begins with
    after, before = (np.ascontiguousarray(image) for image in (after, before))
    flow = dense.calc(after, before, flow)
    rows, columns = np.indices(after.shape, np.float32)
    return flow + np.stack([columns, rows], axis=-1)


def _flow(before: NDArray, after: NDArray, points: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    place = np.empty_like(points)  # of the result
    return cv2.calcOpticalFlowPyrLK(before, after, points, place, winSize=_WINDOW, maxLevel=_LEVELS)
