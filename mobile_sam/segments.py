"""What comes out: segmented objects, each mask kept only within its box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Segments:
    """N segmented objects.

    Attributes:
        image_size: height and width of the image, in pixels.
        boxes: float32 (N, 4), the masks' tight half-open boxes, x_min, y_min, x_max, y_max in
            pixels; zeros where a mask is empty.
        crops: N masks, bool (h, w) each, within its box: pixel (0, 0) is the box's minimum.
        predicted_iou: float32 (N,), the model's own estimate of the masks' quality, about 0 to 1.
        stability: float32 (N,), 0 to 1, see `postprocess.Regions`.
        logits: float32 (N, m, m), low-resolution, over the padded input; fit for
            `Prompt.mask_logits`.
    """

    image_size: tuple[int, int]
    boxes: NDArray[np.float32]
    crops: tuple[NDArray[np.bool_], ...]
    predicted_iou: NDArray[np.float32]
    stability: NDArray[np.float32]
    logits: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.crops)

    @cached_property
    def masks(self) -> NDArray[np.bool_]:
        """The masks in the whole image, bool (N, H, W)."""
        masks = np.zeros((len(self), *self.image_size), bool)
        for mask, (x0, y0, x1, y1), crop in zip(
            masks, self.boxes.astype(int), self.crops, strict=True
        ):
            mask[y0:y1, x0:x1] = crop
        return masks

    @cached_property
    def area(self) -> NDArray[np.int64]:
        """Pixels of each mask, int64 (N,)."""
        return np.array([np.count_nonzero(crop) for crop in self.crops], np.int64)

    def take(self, indices: NDArray[np.integer]) -> Segments:
        """Returns the objects of these indices, in their order."""
        return Segments(
            self.image_size,
            self.boxes[indices],
            tuple(self.crops[i] for i in indices),
            self.predicted_iou[indices],
            self.stability[indices],
            self.logits[indices],
        )

    def shifted(self, x: int, y: int, image_size: tuple[int, int]) -> Segments:
        """Returns the same objects in a larger image, of which this one's begins at (x, y)."""
        filled = (self.area > 0)[:, None]
        offset = np.array([x, y, x, y], np.float32)
        boxes = np.where(filled, self.boxes + offset, 0).astype(np.float32)
        return Segments(
            image_size, boxes, self.crops, self.predicted_iou, self.stability, self.logits
        )


def tight_box(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Returns the half-open box of a mask, float32 x, y, x, y in pixels; zeros if it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return np.zeros(4, np.float32)
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def inner_points(mask: NDArray[np.bool_], count: int) -> NDArray[np.float32]:
    """Returns up to `count` pixels that lie farthest from a mask's outline and apart from each
    other, the deepest one first: float32 (K, 2), x and y."""
    depth = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    depth = np.ascontiguousarray(depth)
    points = []
    for _ in range(count):
        y, x = (int(i) for i in np.unravel_index(depth.argmax(), depth.shape))
        if depth[y, x] <= 0:
            break
        points.append((x, y))
        cv2.circle(depth, (x, y), max(3, int(1.5 * depth[y, x])), 0.0, -1)
    return np.array(points, np.float32).reshape(-1, 2)


def no_segments(image_size: tuple[int, int], mask_size: int) -> Segments:
    """Returns no objects in an image (height, width), of a model with logits (m, m)."""
    return Segments(
        image_size,
        boxes=np.zeros((0, 4), np.float32),
        crops=(),
        predicted_iou=np.zeros(0, np.float32),
        stability=np.zeros(0, np.float32),
        logits=np.zeros((0, mask_size, mask_size), np.float32),
    )


def concatenate(parts: Sequence[Segments]) -> Segments:
    """Returns the objects of all parts, one or more, which must be of the same image."""
    return Segments(
        parts[0].image_size,
        np.concatenate([part.boxes for part in parts]),
        tuple(crop for part in parts for crop in part.crops),
        np.concatenate([part.predicted_iou for part in parts]),
        np.concatenate([part.stability for part in parts]),
        np.concatenate([part.logits for part in parts]),
    )
