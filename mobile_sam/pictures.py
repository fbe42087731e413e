"""Pictures from an image file, a folder of images or a video, one after the other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray


class PictureError(Exception):
    """There is nothing to read there; the message names the file."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture and what it is called.

    Attributes:
        name: the file's name; in a video, with the number of the frame.
        image: uint8 (H, W, 3), RGB; None if the file is damaged.
    """

    name: str
    image: NDArray[np.uint8] | None


@dataclass(frozen=True)
class Pictures:
    """What there is to read.

    Attributes:
        path: as it was given.
        count: number of pictures; of a video, what its header says, and 0 if it says nothing.
        rate: pictures a second of a video; 0 for anything else.
    """

    path: Path
    count: int
    rate: float

    def __iter__(self) -> Iterator[Picture]:
        if self.path.is_dir():
            for file in image_files(self.path):
                yield Picture(file.name, _read(file))
        elif self.rate:
            yield from _frames(self.path)
        else:
            yield Picture(self.path.name, _read(self.path))


def open_pictures(path: Path) -> Pictures:
    """Looks at what is at `path`: an image, a folder (its images, by name), or a video.

    Raises:
        PictureError: there is no such file, or no picture can be read from it.
    """
    if not path.exists():
        raise PictureError(f"{path}: no such file or folder")
    if path.is_dir():
        files = image_files(path)
        if not files:
            raise PictureError(f"{path}: no image can be read from it")
        return Pictures(path, len(files), 0.0)
    if cv2.haveImageReader(str(path)):
        return Pictures(path, 1, 0.0)
    video = cv2.VideoCapture(str(path))
    try:
        if not video.read()[0]:
            raise PictureError(f"{path}: no image can be read from it")
        rate = video.get(cv2.CAP_PROP_FPS)
        count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        return Pictures(path, max(count, 0), rate if 0 < rate < 1000 else 30.0)
    finally:
        video.release()


def first_image(path: Path) -> NDArray[np.uint8]:
    """Returns an image, or the first one of a folder or video: uint8 (H, W, 3), RGB.

    Raises:
        PictureError: there is none, or it is damaged.
    """
    picture = next(iter(open_pictures(path)))
    if picture.image is None:
        raise PictureError(f"{path}: damaged")
    return picture.image


def natural_order(name: str) -> list[tuple[bool, int, str]]:
    """Returns a sorting key by which frame2.png comes before frame10.png."""
    parts = re.split(r"(\d+)", name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def image_files(folder: Path) -> list[Path]:
    """Returns the images of a folder, by name."""
    files = sorted(folder.iterdir(), key=lambda file: natural_order(file.name))
    return [file for file in files if file.is_file() and cv2.haveImageReader(str(file))]


def _read(file: Path) -> NDArray[np.uint8] | None:
    image = cv2.imread(str(file), cv2.IMREAD_COLOR)
    return None if image is None else _rgb(image)


def _frames(file: Path) -> Iterator[Picture]:
    video = cv2.VideoCapture(str(file))
    try:
        number = 0
        while True:
            success, image = video.read()
            if not success:
                return
            yield Picture(f"{file.stem}_{number:06}.png", _rgb(image))
            number += 1
    finally:
        video.release()


def _rgb(image: NDArray) -> NDArray[np.uint8]:
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
