"""Single random scenes, for training."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mobile_sam.scenes import camera, painting, shapes, textures

# An object is put elsewhere if it would leave less than this share of another one visible.
_VISIBLE_SHARE = 0.3
_ATTEMPTS = 6


@dataclass(frozen=True)
class Scene:
    """A picture and its truth.

    image: uint8 (H, W, 3), RGB.
    labels: uint16 (H, W); 0 is background, i the visible pixels of object i.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint16]


def draw_scene(
    rng: np.random.Generator,
    size_hw: tuple[int, int] = (256, 256),
    objects: tuple[int, int] = (1, 10),
) -> Scene:
    """Draw a random scene of `size_hw` pixels.

    `objects` is the least and the greatest number of objects. Fewer come out where there is no
    place left; the labels are 1 to n without gaps, and later objects lie over earlier ones.
    """
    height, width = size_hw
    canvas = textures.background(rng, height, width)
    labels = np.zeros((height, width), np.uint16)
    full_areas = [0]
    shadows = rng.random() < 0.4
    direction = rng.uniform(0, 2 * np.pi)
    low_contrast = rng.random() < 0.05
    largest = rng.uniform(0.2, 0.7)
    for _ in range(int(rng.integers(objects[0], objects[1] + 1))):
        placed = _find_place(rng, labels, full_areas, largest)
        if placed is None:
            continue
        window, mask = placed
        behind = np.array(cv2.mean(canvas[window], mask)[:3])
        contrast = rng.uniform(20, 60) if low_contrast else rng.uniform(90, 220)
        skin = painting.random_skin(rng, *mask.shape, behind, contrast)  # type: ignore[call-arg]
        if rng.random() < 0.12:
            rim = int(rng.integers(1, 4))
            skin = painting.outline(skin, mask, rim, textures.random_colour(rng))
        if shadows:
            distance = rng.uniform(1, 8)
            offset = (round(distance * np.cos(direction)), round(distance * np.sin(direction)))
            painting.cast_shadow(canvas, mask, window, offset, rng.uniform(0.3, 0.7))
        painting.put_object(canvas, labels, window, mask, skin, len(full_areas))
        full_areas.append(int((mask >= 128).sum()))
    return Scene(camera.photograph(rng, canvas), labels)


def _find_place(
    rng: np.random.Generator,
    labels: NDArray[np.uint16],
    full_areas: list[int],
    largest: float,
) -> tuple[painting.Window, textures.Image] | None:
    """Return window and mask of a new object that hides no earlier one, or None.

    `full_areas` holds the pixels of each object before anything covered it, by label.
    """
    height, width = labels.shape
    side = min(height, width)
    shape = shapes.random_shape(rng)
    for attempt in range(_ATTEMPTS):
        # Smaller at each attempt: what does not fit may fit between the others.
        extent = np.exp(rng.uniform(np.log(0.14), np.log(largest))) * 0.85**attempt
        radius = max(side * extent * (0.5 + 0.2 * rng.random()), 5.0)
        centre = (rng.uniform(0, width), rng.uniform(0, height))
        transform = shapes.pose(centre, radius, rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 1))
        found = shapes.draw_mask(shape, transform, height, width)
        if found is None:
            continue
        window, mask = found
        inside = mask >= 128
        if np.count_nonzero(inside) < 24:
            continue
        below = labels[window]
        seen = np.bincount(labels.ravel(), minlength=len(full_areas))
        hidden = np.bincount(below[inside], minlength=len(full_areas))
        left = (seen - hidden)[1:] >= _VISIBLE_SHARE * np.array(full_areas[1:])
        if left.all():
            return window, mask
    return None
