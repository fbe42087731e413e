"""Segments as COCO JSON, and boxes out of it (cocodataset.org, "Data format")."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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


@dataclass
class CocoWriter:
    """Collects the segments of any number of images.

    Attributes:
        categories: names by id; one, "object", unless said otherwise.
    """

    categories: Mapping[int, str] = field(default_factory=lambda: dict(_OBJECT))
    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self, file_name: str, segments: Segments, categories: NDArray[np.int64] | None = None
    ) -> None:
        """Adds an image and its N segments; those with an empty mask are left out.

        Args:
            file_name: of the image.
            segments: N objects.
            categories: int64 (N,), one for each; None: the first one there is.
        """
        height, width = segments.image_size
        image = {"id": len(self.images) + 1, "file_name": file_name}
        self.images.append({**image, "height": height, "width": width})
        for i in range(len(segments)):
            if not segments.area[i]:
                continue
            x0, y0, x1, y1 = (int(value) for value in segments.boxes[i])
            mask = np.zeros((height, width), bool)
            mask[y0:y1, x0:x1] = segments.crops[i]
            category = next(iter(self.categories)) if categories is None else int(categories[i])
            self.annotations.append(
                {
                    "id": len(self.annotations) + 1,
                    "image_id": image["id"],
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
            )

    def save(self, path: Path) -> None:
        """Writes the file, all of it or nothing."""
        content = {
            "info": {"description": "mobile_sam"},
            "images": self.images,
            "annotations": self.annotations,
            "categories": [{"id": k, "name": v} for k, v in self.categories.items()],
        }
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            partial.write_text(json.dumps(content))
            partial.replace(path)
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
