"""Label images and overlays: composed once over the image, whatever the number of objects."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

_GOLDEN_ANGLE = 0.618034
_OUTLINE = np.array([255, 255, 255], np.uint8)


def label_image(
    crops: Sequence[NDArray[np.bool_]], boxes: NDArray[np.float32], image_hw: tuple[int, int]
) -> NDArray[np.uint16]:
    """Returns the object at each pixel: uint16 (H, W), i + 1 for object i, 0 for none.

    Where objects overlap, the smaller one lies on top. Each is painted within its box only.

    Args:
        crops: N masks, bool (h, w) each, within its box.
        boxes: float32 (N, 4), half-open.
        image_hw: height and width.
    """
    labels = np.zeros(image_hw, np.uint16)
    for i in np.argsort([np.count_nonzero(crop) for crop in crops])[::-1]:
        x0, y0, x1, y1 = boxes[i].astype(int)
        labels[y0:y1, x0:x1][crops[i]] = i + 1
    return labels


def palette(count: int) -> NDArray[np.uint8]:
    """Returns colours for the labels 0 to `count`, uint8 RGB (count + 1, 3), neighbours far apart.

    The colour of a label is always the same.
    """
    hue = (np.arange(count + 1) * _GOLDEN_ANGLE % 1 * 179).astype(np.uint8)
    value = np.full_like(hue, 255)
    hsv = np.stack([hue, np.full_like(hue, 210), value], axis=1)[None]
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0].astype(np.uint8, copy=False)


def overlay_image(
    image: NDArray[np.uint8], labels: NDArray[np.uint16], alpha: float
) -> NDArray[np.uint8]:
    """Returns the image with its objects coloured and outlined.

    Args:
        image: uint8 (H, W, 3), RGB.
        labels: uint16 (H, W).
        alpha: 0 leaves the colours as they are, 1 replaces them.
    """
    present = labels > 0
    if not present.any():
        return image.copy()
    colours = palette(int(labels.max()))[labels]
    blended = cv2.addWeighted(image, 1 - alpha, colours, alpha, 0)
    result = np.where(present[..., None], blended, image)
    border = cv2.morphologyEx(labels, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    result[border & present] = _OUTLINE
    return result.astype(np.uint8, copy=False)
