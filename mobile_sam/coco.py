"""Segments as COCO JSON, and boxes out of it (cocodataset.org, "Data format")."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mobile_sam.run_lengths import compress, counts_from_mask
from mobile_sam.segments import Segments

_OBJECT = {1: "object"}


class CocoError(Exception):
    """A file that is not the COCO JSON that is needed; the message names file and field."""


@dataclass(frozen=True, eq=False)
class Boxes:
    """The N boxes of one image.

    Attributes:
        xyxy: float32 (N, 4), half-open, in pixels.
        categories: int64 (N,), their categories' ids.
    """

    xyxy: NDArray[np.float32]
    categories: NDArray[np.int64]


class _Spool:
    """Entries of a list in JSON, in a temporary file until they are all there.

    An entry that could not be written, as on a full disk, leaves no part of it.
    """

    def __init__(self) -> None:
        self.count = self._size = 0
        self._file = TemporaryFile(buffering=0)

    def add(self, entry: Mapping[str, Any]) -> None:
        data = ((",\n" if self.count else "") + json.dumps(entry)).encode()
        self._file.seek(self._size)
        written = 0
        try:
            while written < len(data):
                written += self._file.write(data[written:])
        except OSError as error:
            raise OSError(error.errno, error.strerror, gettempdir()) from error
        self._size += written
        self.count += 1

    def copy_to(self, file: IO[bytes]) -> None:
        self._file.truncate(self._size)
        self._file.seek(0)
        shutil.copyfileobj(self._file, file)


class CocoWriter:
    """Collects the segments of any number of images, on disk: a video of hours needs no memory.

    Attributes:
        categories: names by id; one, "object", unless said otherwise. More may be added until
            `save`.
    """

    def __init__(self, categories: Mapping[int, str] | None = None) -> None:
        """Begins without images."""
        self.categories = dict(_OBJECT if categories is None else categories)
        self._images, self._annotations = _Spool(), _Spool()

    def add(
        self,
        file_name: str,
        segments: Segments,
        categories: NDArray[np.int64] | None = None,
        tracks: Sequence[str] | None = None,
    ) -> None:
        """Adds an image and its N segments; those with an empty mask are left out.

        Args:
            file_name: of the image.
            segments: N objects.
            categories: int64 (N,), one for each; None: the first one there is.
            tracks: N names, the same for the same object in other images (`track_id`).

        Raises:
            OSError: the disk of temporary files is full.
        """
        height, width = segments.image_size
        number = self._images.count + 1
        annotations: list[dict[str, Any]] = []
        for i in range(len(segments)):
            if not segments.area[i]:
                continue
            x0, y0, x1, y1 = (int(value) for value in segments.boxes[i])
            mask = np.zeros((height, width), bool)
            mask[y0:y1, x0:x1] = segments.crops[i]
            category = next(iter(self.categories)) if categories is None else int(categories[i])
            annotation = {
                "id": self._annotations.count + len(annotations) + 1,
                "image_id": number,
                "category_id": category,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": int(segments.area[i]),
                "iscrowd": 0,
                "segmentation": {
                    "size": [height, width],
                    "counts": compress(counts_from_mask(mask)),
                },
                "score": round(float(segments.predicted_iou[i]), 5),
                "stability": round(float(segments.stability[i]), 5),
            }
            annotations.append(annotation | ({} if tracks is None else {"track_id": tracks[i]}))
        self._images.add({"id": number, "file_name": file_name, "height": height, "width": width})
        for annotation in annotations:
            self._annotations.add(annotation)

    def save(self, path: Path) -> None:
        """Writes the file, all of it or nothing; more images may be added after that.

        Raises:
            OSError: it cannot be written.
        """
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        categories = [{"id": k, "name": v} for k, v in self.categories.items()]
        try:
            with partial.open("wb") as file:
                file.write(b'{"info": {"description": "mobile_sam"},\n"images": [')
                self._images.copy_to(file)
                file.write(b'],\n"annotations": [')
                self._annotations.copy_to(file)
                file.write(f'],\n"categories": {json.dumps(categories)}}}\n'.encode())
            partial.replace(path)
        except OSError as error:  # one of a full disk names no file
            raise OSError(error.errno, error.strerror, str(path)) from error
        finally:
            partial.unlink(missing_ok=True)


def read_boxes(path: Path) -> tuple[dict[str, Boxes], dict[int, str]]:
    """Reads the boxes of a COCO file.

    Returns:
        The boxes by the image's file name, and the categories' names by id.

    Raises:
        CocoError: not JSON, or without what is needed; the message names file and field.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CocoError(f"{path}: not a JSON file that can be read: {error}") from error
    try:
        names = {image["id"]: str(image["file_name"]) for image in content["images"]}
        categories = {int(c["id"]): str(c["name"]) for c in content.get("categories", [])}
        found: dict[str, tuple[list, list]] = {name: ([], []) for name in names.values()}
        for number, annotation in enumerate(content["annotations"]):
            where = f"annotations[{number}]"
            if annotation["image_id"] not in names:
                raise CocoError(f"{path}: {where}: no image has id {annotation['image_id']!r}")
            x, y, width, height = (float(value) for value in annotation["bbox"])
            if not (width > 0 and height > 0):
                raise CocoError(f"{path}: {where}: bbox {annotation['bbox']} has no inside")
            boxes, ids = found[names[annotation["image_id"]]]
            boxes.append((x, y, x + width, y + height))
            ids.append(int(annotation.get("category_id", 1)))
    except KeyError as error:
        raise CocoError(f"{path}: an entry has no {error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise CocoError(f"{path}: not in COCO's form: {error}") from error
    return {
        name: Boxes(np.array(boxes, np.float32).reshape(-1, 4), np.array(ids, np.int64))
        for name, (boxes, ids) in found.items()
    }, categories or dict(_OBJECT)
