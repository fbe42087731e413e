"""Where the demo camera has its images from: a procedural scene, a video file or a folder."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mobile_sam.pictures import PictureError, open_pictures
from mobile_sam.scenes import MovingScene

# An image, uint8 (H, W, 3) RGB, and where it is known the object at each pixel, uint16 (H, W).
Shot = tuple[NDArray[np.uint8], NDArray[np.uint16] | None]

PROCEDURAL_SIZE = (480, 640)  # height and width
MAX_SIDE = 1280  # larger images are scaled down: the demo is about more than moving bytes


def procedural_shots(seed: int, size_hw: tuple[int, int], objects: int) -> Iterator[Shot]:
    """Yields the frames of a moving scene, without end."""
    scene = MovingScene(seed, size_hw, objects)
    for index in count():
        frame = scene.frame(index)
        yield frame.image, frame.labels


def file_shots(path: Path) -> Iterator[Shot]:
    """Yields the frames of a video file, or the images of a folder in the order of their names.

    What can be wrong is found here, before the first frame is asked for. Later, an image of a
    folder that turns out to be damaged is left out.

    Raises:
        PictureError: there is no such file, or no image can be read from it.
    """
    pictures = open_pictures(path)
    shots = ((_displayable(p.image), None) for p in pictures if p.image is not None)
    first = next(shots, None)
    if first is None:
        raise PictureError(f"{path}: no image can be read from it")
    return _chained(first, shots)


def repeated(path: Path) -> Iterator[Shot]:
    """Yields the same again and again; errors are those of `file_shots`."""
    return _chained_all(file_shots(path), path)


def _chained_all(first: Iterator[Shot], path: Path) -> Iterator[Shot]:
    yield from first
    while True:
        yield from file_shots(path)


def _chained(first: Shot, rest: Iterator[Shot]) -> Iterator[Shot]:
    yield first
    yield from rest


def _displayable(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns an image of at most MAX_SIDE pixels a side."""
    scale = MAX_SIDE / max(image.shape[:2])
    if scale >= 1:
        return image
    smaller = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return smaller.astype(np.uint8, copy=False)
