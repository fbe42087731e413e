"""What else is made of the segments in a bag: COCO JSON, the pictures to it, and a video."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import mobile_sam
from mobile_sam.coco import CocoWriter
from mobile_sam.overlay import label_image, overlay_image
from mobile_sam.videos import VideoFile
from mobile_sam_ros.identity import Identity

_UNNAMED = "object"  # category of what has no class


class Exports:
    """Files beside the bag. A context manager: left by an error, there are none but pictures."""

    def __init__(
        self,
        coco: Path | None,
        images: Path | None,
        video: Path | None,
        rate: float,
        alpha: float,
        scratch: Path,
    ) -> None:
        """Begins them.

        Args:
            coco: file of COCO JSON.
            images: folder for the pictures that it names.
            video: file of the overlays.
            rate: pictures a second of the video.
            alpha: of the overlay.
            scratch: folder for what is not complete.

        Raises:
            ValueError: a format of video that is not known.
        """
        self._coco, self._images, self._video, self._alpha = coco, images, video, alpha
        self._writer = CocoWriter({})
        self._categories: dict[str, int] = {}
        self._stack = ExitStack()
        self._partial = None if video is None else scratch / f"video{video.suffix}"
        self._file = None if self._partial is None else VideoFile(self._partial, rate)

    def __enter__(self) -> Exports:
        for path in (self._coco, self._video):
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
        if self._images is not None:
            self._images.mkdir(parents=True, exist_ok=True)
        if self._file is not None:
            self._stack.enter_context(self._file)
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._stack.close()
        if kind is not None:
            return
        if self._coco is not None:
            self._writer.save(self._coco)
        if self._file is not None and self._file.pictures:
            assert self._video is not None and self._partial is not None
            shutil.move(self._partial, self._video)

    def add(
        self,
        number: int,
        message: Any,
        image: NDArray[np.uint8],
        segments: mobile_sam.Segments,
        identities: Sequence[Identity],
    ) -> None:
        """Adds an image.

        Args:
            number: of the image, from 0.
            message: as it was recorded.
            image: its pixels, uint8 (H, W, 3), RGB.
            segments: N objects in it.
            identities: N, in the same order.
        """
        # A JPEG is kept as it is: written again, it would be another picture.
        is_jpeg = bytes(message.data[:2]) == b"\xff\xd8" and hasattr(message, "format")
        name = f"image_{number:06}.{'jpg' if is_jpeg else 'png'}"
        if self._coco is not None:
            categories = np.array([self._category(known) for known in identities], np.int64)
            tracks = [known.id for known in identities]
            self._writer.add(name, segments, categories, tracks)
        if self._images is not None:
            path = self._images / name
            if is_jpeg:
                path.write_bytes(bytes(message.data))
            elif not cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)):
                raise OSError(f"{path}: cannot be written")
        if self._file is not None:
            labels = label_image(segments.crops, segments.boxes, segments.image_size)
            self._file.write(overlay_image(image, labels, self._alpha))

    def _category(self, identity: Identity) -> int:
        """Returns the id of an object's category, a new one for a new class."""
        name = identity.class_id or _UNNAMED
        number = self._categories.setdefault(name, len(self._categories) + 1)
        self._writer.categories[number] = name
        return number
