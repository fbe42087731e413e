"""The picture of a run: a few overlays in a grid, each with a caption."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

_COLUMNS = 3
_TILE_WIDTH = 420
_CAPTION_HEIGHT = 24
_GAP = 8
_PAPER = (255, 255, 255)
_INK = (70, 70, 70)


def evenly(stamps: Sequence[int], number: int) -> list[int]:
    """Returns `number` of the stamps (all, if there are fewer), at about equal times."""
    if len(stamps) <= number:
        return sorted(stamps)
    left = sorted(stamps)
    chosen = []
    for time in np.linspace(left[0], left[-1], number):
        nearest = min(left, key=lambda stamp: abs(stamp - time))
        left.remove(nearest)
        chosen.append(nearest)
    return sorted(chosen)


def picture_strip(
    images: Sequence[NDArray[np.uint8]], captions: Sequence[str]
) -> NDArray[np.uint8]:
    """Returns images in rows of three, captions below them.

    Args:
        images: at least one, uint8 (H, W, 3) RGB; scaled to one width.
        captions: one an image, of ASCII.

    Returns:
        uint8 (H', W', 3) RGB.
    """
    tiles = [_tile(image, caption) for image, caption in zip(images, captions, strict=True)]
    height = max(tile.shape[0] for tile in tiles)
    columns = min(_COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    size = (rows * (height + _GAP) + _GAP, columns * (_TILE_WIDTH + _GAP) + _GAP, 3)
    canvas = np.full(size, _PAPER, np.uint8)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        top = _GAP + row * (height + _GAP)
        left = _GAP + column * (_TILE_WIDTH + _GAP)
        canvas[top : top + tile.shape[0], left : left + _TILE_WIDTH] = tile
    return canvas


def _tile(image: NDArray[np.uint8], caption: str) -> NDArray[np.uint8]:
    scale = _TILE_WIDTH / image.shape[1]
    size = (_TILE_WIDTH, round(image.shape[0] * scale))
    smaller = cv2.resize(
        image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    )
    below = np.full((_CAPTION_HEIGHT, _TILE_WIDTH, 3), _PAPER, np.uint8)
    cv2.putText(below, caption, (2, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.45, _INK, 1, cv2.LINE_AA)
    return np.concatenate([smaller.astype(np.uint8, copy=False), below])
