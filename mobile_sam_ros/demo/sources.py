"""Where the demo camera has its images from: a procedural scene, a video file or a folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mobile_sam.scenes import MovingScene

# An image, uint8 (H, W, 3) RGB, and where it is known the object at each pixel, uint16 (H, W).
Shot = tuple[NDArray[np.uint8], NDArray[np.uint16] | None]

MAX_SIDE = 1280  # larger images are scaled down: the demo is about more than moving bytes


class SourceError(Exception):
    """There is nothing to read there; the text names the file."""


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
        SourceError: there is no such file, or no image can be read from it.
    """
    if not path.exists():
        raise SourceError(f"{path}: no such file or folder")
    images = _folder_images(path) if path.is_dir() else _video_images(path)
    first = next(images, None)
    if first is None:
        raise SourceError(f"{path}: no image can be read from it")
    return _shots(first, images)


def _shots(first: NDArray[np.uint8], rest: Iterator[NDArray[np.uint8]]) -> Iterator[Shot]:
    yield _displayable(first), None
    for image in rest:
        yield _displayable(image), None


def _folder_images(folder: Path) -> Iterator[NDArray[np.uint8]]:
    """Yields all files of a folder that are images, BGR."""
    for file in sorted(folder.iterdir(), key=lambda file: natural_order(file.name)):
        if not file.is_file() or not cv2.haveImageReader(str(file)):
            continue
        image = cv2.imread(str(file), cv2.IMREAD_COLOR)
        if image is not None:
            yield image.astype(np.uint8, copy=False)


def _video_images(file: Path) -> Iterator[NDArray[np.uint8]]:
    """Yields the frames of a video, BGR."""
    video = cv2.VideoCapture(str(file))
    try:
        while True:
            success, image = video.read()
            if not success:
                return
            yield image.astype(np.uint8, copy=False)
    finally:
        video.release()


def natural_order(name: str) -> list[tuple[bool, int, str]]:
    """Returns a sorting key by which frame2.png comes before frame10.png."""
    parts = re.split(r"(\d+)", name)
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


def _displayable(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns a BGR image as RGB, of at most MAX_SIDE pixels a side."""
    scale = MAX_SIDE / max(image.shape[:2])
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(
            np.uint8, copy=False
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
