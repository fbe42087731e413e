"""Pictures with the masks of their objects, to train on or to measure with: procedural scenes,
COCO JSON, or a folder of label images."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from mobile_sam.pictures import PictureError
from mobile_sam.predictor import scaled_size
from mobile_sam.run_lengths import decompress, mask_from_counts
from mobile_sam.scenes import Scene, draw_robot_scene, draw_scene
from mobile_sam.training.unlabelled import list_pictures

_LEAST_SHARE = 0.001  # of a scene; what is smaller is no object to learn from
_FINE = 7  # odd, so that a pixel has a middle
_PHOTOGRAPH_SIDE = 640  # pixels, at most: what is larger is kept smaller
EXAMPLES_FORMS = "scenes, robot-scenes[:PHOTOGRAPHS], coco:FILE.json:IMAGES or labels:IMAGES:LABELS"


class ExamplesError(Exception):
    """Data that cannot be used; the message names file and field."""


@dataclass(frozen=True, eq=False)
class Example:
    """A picture and its objects.

    Attributes:
        name: of the picture.
        image: uint8 (H, W, 3), RGB.
        masks: bool (H, W) each, none of them empty.
    """

    name: str
    image: NDArray[np.uint8]
    masks: tuple[NDArray[np.bool_], ...]


class Examples(Protocol):
    """Something that has examples by number. `count` is None where it never ends."""

    count: int | None

    def get(self, number: int) -> Example:
        """Returns an example; the same number always gives the same."""


@dataclass
class SceneExamples:
    """Procedural scenes, as many as one likes.

    Attributes:
        seed: of the whole row.
        size_hw: height and width, in pixels.
        landscape: share of the scenes that are less high, down to half, as a camera's pictures
            are: of them the model sees the padding too.
        draw: makes a scene of a generator and a size.
        least_share: of the scene; what is smaller is no object.
        count: None, as they never end.
    """

    seed: tuple[int, ...]
    size_hw: tuple[int, int]
    landscape: float = 0.0
    draw: Callable[[np.random.Generator, tuple[int, int]], Scene] = draw_scene
    least_share: float = _LEAST_SHARE
    count: int | None = None

    def get(self, number: int) -> Example:
        """Returns a scene with at least one object."""
        rng = np.random.default_rng((*self.seed, number))
        height, width = self.size_hw
        if self.landscape and rng.random() < self.landscape:
            height = round(height * rng.uniform(0.5, 1))
        while True:
            scene = self.draw(rng, (height, width))
            areas = np.bincount(scene.labels.ravel())
            large = np.flatnonzero(areas[1:] >= self.least_share * scene.labels.size) + 1
            if len(large):
                masks = tuple(scene.labels == label for label in large)
                return Example(f"scene {number}", scene.image, masks)


class CocoExamples:
    """Images with annotations in COCO's form: polygons, or run lengths of either kind."""

    def __init__(self, path: Path, images: Path) -> None:
        """Reads the file; images are read when they are asked for, but must be there.

        Raises:
            ExamplesError: not COCO JSON, none of its images has an object, or one that has some is
                missing.
        """
        self._path, self._images = path, images
        try:
            content = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise ExamplesError(f"{path}: not a JSON file that can be read: {error}") from error
        try:
            files = {image["id"]: image for image in content["images"]}
            by_image: dict[Any, list[dict]] = {}
            for annotation in content["annotations"]:
                if not annotation.get("iscrowd"):
                    by_image.setdefault(annotation["image_id"], []).append(annotation)
            unknown = next((i for i in by_image if i not in files), None)
            if unknown is not None:
                raise ExamplesError(
                    f"{path}: an annotation is of image {unknown}, which is not there"
                )
            self._rows = [(files[i], by_image[i]) for i in files if i in by_image]
            paths = [images / image["file_name"] for image, _ in self._rows]
        except (KeyError, TypeError, AttributeError) as error:
            raise ExamplesError(f"{path}: not in COCO's form: {error!r}") from error
        if not self._rows:
            raise ExamplesError(f"{path}: has no image with an object")
        missing = [file for file in paths if not file.is_file()]
        if missing:
            raise ExamplesError(
                f"{missing[0]}: no such file; {path} has objects in {len(paths)} images, of which "
                f"{len(missing)} are missing"
            )
        self.count: int | None = len(self._rows)

    def get(self, number: int) -> Example:
        """Returns an image with its objects.

        Raises:
            ExamplesError: the image or one of its annotations cannot be read.
        """
        record, annotations = self._rows[number]
        image = self._read(record)
        masks = []
        for annotation in annotations:
            try:
                mask = _mask(annotation["segmentation"], image.shape[:2])
            except (KeyError, TypeError, ValueError) as error:
                raise ExamplesError(
                    f"{self._path}: annotation {annotation.get('id')}: bad segmentation: {error}"
                ) from error
            if mask.any():
                masks.append(mask)
        return Example(record["file_name"], image, tuple(masks))

    def _read(self, record: dict) -> NDArray[np.uint8]:
        """Returns an image in the size that it had when it was annotated: with or without the
        orientation that a camera notes (EXIF)."""
        path = self._images / record["file_name"]
        image = _read_image(path)
        declared = record.get("height"), record.get("width")
        if None in declared or declared == image.shape[:2]:
            return image
        as_stored = _read_image(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if declared == as_stored.shape[:2]:
            return as_stored
        raise ExamplesError(
            f"{path}: is {image.shape[1]}x{image.shape[0]} pixels, not {declared[1]}x{declared[0]} "
            f"as {self._path} says"
        )


class LabelExamples:
    """A folder of images and one of label images of the same names: PNG, 8 or 16 bit, 0 for the
    background and one value for each object."""

    def __init__(self, images: Path, labels: Path) -> None:
        """Pairs the files.

        Raises:
            ExamplesError: an image has no label image, or there are none.
        """
        suffixes = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
        if not images.is_dir():
            raise ExamplesError(f"{images}: no such folder")
        found = sorted(path for path in images.iterdir() if path.suffix.lower() in suffixes)
        self._pairs = [(path, labels / f"{path.stem}.png") for path in found]
        for path, label in self._pairs:
            if not label.is_file():
                raise ExamplesError(f"{label}: no such file, for {path}")
        if not self._pairs:
            raise ExamplesError(f"{images}: has no images")
        self.count: int | None = len(self._pairs)

    def get(self, number: int) -> Example:
        """Returns an image with its objects.

        Raises:
            ExamplesError: one of the files cannot be read, or their sizes differ.
        """
        path, label_path = self._pairs[number]
        image = _read_image(path)
        labels = cv2.imread(str(label_path), cv2.IMREAD_UNCHANGED)
        if labels is None or labels.ndim != 2 or labels.shape != image.shape[:2]:
            shape = None if labels is None else labels.shape
            raise ExamplesError(
                f"{label_path}: has shape {shape}, not one channel of the image's {image.shape[:2]}"
            )
        masks = tuple(labels == value for value in np.unique(labels) if value)
        return Example(path.name, image, masks)


def open_examples(
    text: str, seed: tuple[int, ...], size_hw: tuple[int, int], landscape: float = 0.0
) -> Examples:
    """Opens what a command line names.

    Args:
        text: `scenes`, `robot-scenes`, `robot-scenes:PHOTOGRAPHS` (a source as of
            `list_pictures`, of which textures are made), `coco:FILE.json:IMAGES` or
            `labels:IMAGES:LABELS`.
        seed: of scenes.
        size_hw: of scenes.
        landscape: of scenes, see `SceneExamples`.

    Raises:
        ExamplesError: none of these, or it cannot be read.
    """
    kind, *parts = text.split(":")
    if kind == "scenes" and not parts:
        return SceneExamples(seed, size_hw, landscape)
    if kind == "robot-scenes" and len(parts) < 2:
        photographs = _photographs(Path(parts[0])) if parts else ()
        draw = partial(draw_robot_scene, photographs=photographs)
        return SceneExamples(seed, size_hw, landscape, draw, least_share=0.0)
    if kind == "coco" and len(parts) == 2:
        return CocoExamples(Path(parts[0]), Path(parts[1]))
    if kind == "labels" and len(parts) == 2:
        return LabelExamples(Path(parts[0]), Path(parts[1]))
    raise ExamplesError(f"{text!r} is none of {EXAMPLES_FORMS}")


def first_examples(examples: Examples, most: int) -> Iterator[Example]:
    """Yields the first `most` examples, or all if there are fewer."""
    count = most if examples.count is None else min(most, examples.count)
    return (examples.get(number) for number in range(count))


def _photographs(source: Path) -> tuple[NDArray[np.uint8], ...]:
    """Returns all pictures of a source, uint8 RGB, the large ones made smaller.

    Raises:
        ExamplesError: one cannot be read, or there are none.
    """
    photographs: list[NDArray[np.uint8]] = []
    try:
        for file in list_pictures(source):
            photograph = file.read()
            image_hw = photograph.shape[:2]
            size = scaled_size(image_hw, min(_PHOTOGRAPH_SIDE, max(image_hw)))
            smaller = cv2.resize(photograph, size[::-1], interpolation=cv2.INTER_AREA)
            photographs.append(smaller.astype(np.uint8, copy=False))
    except (OSError, PictureError) as error:
        raise ExamplesError(f"{error}") from error
    return tuple(photographs)


def _read_image(path: Path, flags: int = cv2.IMREAD_COLOR) -> NDArray[np.uint8]:
    try:
        image = cv2.imread(str(path), flags) if path.is_file() else None
    except cv2.error:  # as where the header has too many pixels
        image = None
    if image is None:
        raise ExamplesError(f"{path}: not an image that can be read")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def _mask(segmentation: Any, image_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """Returns the mask, bool (H, W), of a COCO `segmentation`."""
    if isinstance(segmentation, dict):
        height, width = segmentation["size"]
        if (height, width) != image_hw:
            raise ValueError(
                f"size {height}x{width} is not the image's {image_hw[0]}x{image_hw[1]}"
            )
        counts = segmentation["counts"]
        return mask_from_counts(decompress(counts) if isinstance(counts, str) else counts, image_hw)
    mask = np.zeros(image_hw, bool)
    for polygon in segmentation:
        _draw_polygon(mask, np.array(polygon, np.float64).reshape(-1, 2))
    return mask


def _draw_polygon(mask: NDArray[np.bool_], corners: NDArray[np.float64]) -> None:
    """Adds the pixels of `mask` whose centres lie in a polygon.

    OpenCV also takes pixels that the outline touches: so it draws finely, and of that the centres
    count.
    """
    height, width = mask.shape
    low = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, (width, height))
    high = np.clip(np.ceil(corners.max(axis=0)).astype(int), 0, (width, height))
    if (high <= low).any():
        return
    (x0, y0), (x1, y1) = low, high
    fine = np.zeros(((y1 - y0) * _FINE, (x1 - x0) * _FINE), np.uint8)
    drawn = np.round((corners - low) * _FINE - 0.5).astype(np.int32)
    cv2.fillPoly(fine, [drawn], (1,))
    mask[y0:y1, x0:x1] |= fine[_FINE // 2 :: _FINE, _FINE // 2 :: _FINE] > 0
