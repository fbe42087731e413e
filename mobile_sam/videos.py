"""Videos, written picture by picture."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

_CODECS = {".mp4": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}


class VideoFile:
    """A video. It has the size of its first picture, to which others are scaled. A context manager.

    pictures: how many it has.
    """

    def __init__(self, path: Path, rate: float) -> None:
        """Begins a video; the file is made with its first picture.

        Args:
            path: its file; the name's ending says the format.
            rate: pictures a second.

        Raises:
            ValueError: a format that is not known.
        """
        if path.suffix.lower() not in _CODECS:
            raise ValueError(f"{path}: a video's name ends in {', '.join(_CODECS)}")
        self._path, self._rate = path, rate
        self._size = (0, 0)
        self._writer: cv2.VideoWriter | None = None
        self.pictures = 0

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.release()

    def write(self, image: NDArray[np.uint8]) -> None:
        """Adds a picture, uint8 (H, W, 3), RGB.

        Raises:
            OSError: the file cannot be written.
        """
        if self._writer is None:
            self._size = image.shape[1], image.shape[0]
            code = cv2.VideoWriter.fourcc(*_CODECS[self._path.suffix.lower()])
            self._writer = cv2.VideoWriter(str(self._path), code, self._rate, self._size)
            if not self._writer.isOpened():
                raise OSError(f"{self._path}: cannot be written")
        if (image.shape[1], image.shape[0]) != self._size:
            image = cv2.resize(image, self._size).astype(np.uint8, copy=False)
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        self.pictures += 1
