"""Segments everything in an image: a grid of points, or boxes from elsewhere, then filters.

Kirillov et al. 2023, arXiv:2304.02643, section 5.2 and appendix B, for the grid; Zhang et al. 2023
(MobileSAMv2, arXiv:2312.09579) for the boxes, one prompt for each object instead of a thousand
points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from mobile_sam.modeling import MULTI, SINGLE
from mobile_sam.predictor import Embedding, Predictor
from mobile_sam.prompts import Prompt
from mobile_sam.segments import Segments, concatenate, tight_box
from mobile_sam.suppression import non_maximum_suppression

# A mask that ends so near to the edge of a crop, in pixels, is taken to be cut off by it.
_EDGE = 20


@dataclass(frozen=True)
class EverythingSettings:
    """How densely to ask, and what to keep. The defaults are SAM's.

    Raises:
        ValueError: a value outside of its range; the message names both.
    """

    points_per_side: int = 32
    """The grid has this many points along each side of the picture."""
    prompts_per_batch: int = 64
    """More is faster on a GPU and takes more memory."""
    least_predicted_iou: float = 0.88
    """Masks that the model itself thinks worse of are left out; 0 keeps all."""
    least_stability: float = 0.95
    """Masks that change more when cut a little higher or lower are left out; 0 keeps all."""
    stability_offset: float = 1.0
    """How much higher and lower, in logits."""
    box_nms: float = 0.7
    """Of masks whose boxes overlap more (IoU), the one with the best predicted IoU stays."""
    crop_layers: int = 0
    """Looks at the picture again in 4, 16, … overlapping crops, for small objects."""
    crop_nms: float = 0.7
    """The same as `box_nms`, between crops: there the mask of the smaller crop stays."""
    crop_overlap: float = 512 / 1500
    """Share of the shorter side by which the crops of the first layer overlap."""
    crop_points_divisor: int = 1
    """Each layer's grid has so many times fewer points along a side than the one before."""
    least_region: int = 0
    """Holes and islands with fewer pixels are removed from the masks; 0 leaves them."""

    def __post_init__(self) -> None:
        for name, least in (
            ("points_per_side", 1),
            ("prompts_per_batch", 1),
            ("crop_layers", 0),
            ("crop_points_divisor", 1),
            ("least_region", 0),
            ("stability_offset", 0),
        ):
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} is {getattr(self, name)}, the least is {least}")
        for name in ("least_predicted_iou", "least_stability", "box_nms", "crop_nms"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, not in 0 to 1")
        if not 0 <= self.crop_overlap < 1:
            raise ValueError(f"crop_overlap is {self.crop_overlap}, not in 0 to 1")


@dataclass(frozen=True, eq=False)
class Everything:
    """N segments, and what each was found with.

    Attributes:
        segments: of the whole image, best predicted IoU first.
        prompts: the N prompts, in pixels of the whole image.
        crop_boxes: int64 (N, 4), the part of the image that each was found in, half-open.
    """

    segments: Segments
    prompts: tuple[Prompt, ...]
    crop_boxes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.prompts)

    def take(self, indices: NDArray[np.integer]) -> Everything:
        """Returns the objects of these indices, in their order."""
        prompts = tuple(self.prompts[i] for i in indices)
        return Everything(self.segments.take(indices), prompts, self.crop_boxes[indices])


def segment_everything(
    predictor: Predictor,
    image: NDArray[np.uint8],
    settings: EverythingSettings | None = None,
    boxes: NDArray[np.float32] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Everything:
    """Segments all objects in an image.

    Args:
        predictor: with any weights.
        image: uint8 (H, W, 3), RGB.
        settings: None: `EverythingSettings()`.
        boxes: float (K, 4), half-open; asks for the object in each of these, once, instead of
            for whatever is at each point of a grid. There are no crops then.
        progress: called with the prompts done and the prompts in all, after each batch.

    Raises:
        ValueError: an image that `Predictor.encode` refuses, or a bad box.
    """
    settings = settings or EverythingSettings()
    height, width = image.shape[:2]
    if boxes is not None:
        asked = [([0, 0, width, height], _box_prompts(boxes))]
    else:
        asked = [
            (crop, _grid_prompts(crop, settings.points_per_side // divisor))
            for crop, divisor in _crops((height, width), settings)
        ]
    total, done = sum(len(prompts) for _, prompts in asked), 0
    parts = []
    for crop, prompts in asked:
        x0, y0, x1, y1 = crop
        embedding = predictor.encode(image[y0:y1, x0:x1])
        found = []
        for batch in _batches(prompts, settings.prompts_per_batch):
            candidates = _candidates(predictor, embedding, batch, boxes is None, settings)
            whole = ~_cut_off(candidates.segments.boxes, crop, (height, width))
            found.append(candidates.take(np.flatnonzero(whole)))
            done += len(batch)
            if progress is not None:
                progress(done, total)
        of_crop = _joined(found, predictor, (y1 - y0, x1 - x0))
        scores = of_crop.segments.predicted_iou
        stay = non_maximum_suppression(of_crop.segments.boxes, scores, settings.box_nms)
        kept = of_crop.take(stay)
        parts.append(_in_whole_image(kept, crop, (height, width)))
    result = _joined(parts, predictor, (height, width))
    if len(parts) > 1:
        x0, y0, x1, y1 = result.crop_boxes.T
        smallness = 1 / ((x1 - x0) * (y1 - y0))
        stay = non_maximum_suppression(result.segments.boxes, smallness, settings.crop_nms)
        result = result.take(stay)
    if settings.least_region:
        result = _without_small_regions(result, settings)
    return result.take(np.argsort(-result.segments.predicted_iou, kind="stable"))


def _crops(
    image_hw: tuple[int, int], settings: EverythingSettings
) -> Iterator[tuple[list[int], int]]:
    """Yields boxes of the picture and of its crops, and by what each one's grid is thinned."""
    height, width = image_hw
    yield [0, 0, width, height], 1
    for layer in range(1, settings.crop_layers + 1):
        count = 2**layer
        overlap = int(settings.crop_overlap * min(height, width) * 2 / count)
        sides = [math.ceil((overlap * (count - 1) + side) / count) for side in (width, height)]
        for column in range(count):
            for row in range(count):
                x0, y0 = column * (sides[0] - overlap), row * (sides[1] - overlap)
                box = [x0, y0, min(x0 + sides[0], width), min(y0 + sides[1], height)]
                if box[0] < box[2] and box[1] < box[3]:  # few pixels make fewer crops
                    yield box, settings.crop_points_divisor**layer


def _grid_prompts(crop: Sequence[int], side: int) -> list[Prompt]:
    """Points in the middle of `side` by `side` fields, in pixels of the crop."""
    middles = (np.arange(side) + 0.5) / side
    x0, y0, x1, y1 = crop
    return [Prompt(points=[(x * (x1 - x0), y * (y1 - y0))]) for y in middles for x in middles]  # type: ignore[arg-type]


def _box_prompts(boxes: NDArray[np.float32]) -> list[Prompt]:
    prompts = []
    for i, box in enumerate(boxes):
        try:
            prompts.append(Prompt(box=box))
        except ValueError as error:
            raise ValueError(f"boxes[{i}]: {error}") from error
    return prompts


def _batches(prompts: Sequence[Prompt], size: int) -> Iterator[Sequence[Prompt]]:
    for begin in range(0, len(prompts), size):
        yield prompts[begin : begin + size]


def _candidates(
    predictor: Predictor,
    embedding: Embedding,
    prompts: Sequence[Prompt],
    ambiguous: bool,
    settings: EverythingSettings,
) -> Everything:
    """Returns the masks of some prompts that are good enough, in the crop's own pixels."""
    logits, iou = predictor.logits(embedding, prompts, MULTI if ambiguous else SINGLE)
    prompt_of = torch.arange(len(prompts)).repeat_interleave(iou.shape[1])
    logits, iou = logits.flatten(0, 1), iou.flatten()
    # Before anything of the image's size is computed.
    least = settings.least_predicted_iou
    keep = iou > least if least else torch.ones_like(iou, dtype=torch.bool)
    segments = predictor.segments(logits[keep], iou[keep], embedding, settings.stability_offset)
    height, width = embedding.image_size
    found = Everything(
        segments,
        tuple(prompts[i] for i in prompt_of[keep.cpu()]),
        np.tile(np.array([0, 0, width, height]), (len(segments), 1)),
    )
    stable = (segments.area > 0) & (segments.stability >= settings.least_stability)
    return found.take(np.flatnonzero(stable))


def _joined(
    parts: Sequence[Everything], predictor: Predictor, image_size: tuple[int, int]
) -> Everything:
    if not parts:
        return Everything(predictor.nothing(image_size), (), np.zeros((0, 4), np.int64))
    return Everything(
        concatenate([part.segments for part in parts]),
        tuple(prompt for part in parts for prompt in part.prompts),
        np.concatenate([part.crop_boxes for part in parts]),
    )


def _in_whole_image(
    found: Everything, crop: Sequence[int], image_size: tuple[int, int]
) -> Everything:
    """Returns what was found in a crop in pixels of the whole image."""
    x, y = crop[:2]

    def shifted(prompt: Prompt) -> Prompt:
        if prompt.points is None or (x, y) == (0, 0):
            return prompt
        return Prompt(points=prompt.points + np.array([x, y], np.float32))

    return Everything(
        found.segments.shifted(x, y, image_size),
        tuple(shifted(prompt) for prompt in found.prompts),
        np.tile(np.array(crop), (len(found), 1)),
    )


def _cut_off(
    boxes: NDArray[np.float32], crop: Sequence[int], image_hw: tuple[int, int]
) -> NDArray[np.bool_]:
    """Whether a mask ends at an edge of its crop that is none of the image's, bool (N,)."""
    last = boxes - np.array([0, 0, 1, 1], np.float32)  # SAM measures to the last pixel
    last += np.array([crop[0], crop[1], crop[0], crop[1]], np.float32)
    near_crop = np.abs(last - np.array(crop)) <= _EDGE
    near_image = np.abs(last - np.array([0, 0, image_hw[1], image_hw[0]])) <= _EDGE
    return (near_crop & ~near_image).any(axis=1)


def _without_small_regions(found: Everything, settings: EverythingSettings) -> Everything:
    """Fills holes and removes islands, and then what has become a duplicate."""
    segments = found.segments
    cleaned, unchanged = [], []
    for mask in segments.masks:
        filled = _without_islands(~mask, settings.least_region, keep_largest=False)
        clean = _without_islands(~filled, settings.least_region, keep_largest=True)
        cleaned.append(clean)
        unchanged.append(float((clean == mask).all()))
    boxes = np.array([tight_box(mask) for mask in cleaned], np.float32).reshape(-1, 4)
    crops = tuple(
        mask[y0:y1, x0:x1]
        for mask, (x0, y0, x1, y1) in zip(cleaned, boxes.astype(int), strict=True)
    )
    clean_segments = Segments(
        segments.image_size,
        boxes,
        crops,
        segments.predicted_iou,
        segments.stability,
        segments.logits,
    )
    # Those that needed nothing are preferred.
    most = max(settings.box_nms, settings.crop_nms)
    keep = non_maximum_suppression(boxes, np.array(unchanged), most)
    return Everything(clean_segments, found.prompts, found.crop_boxes).take(keep)


def _without_islands(mask: NDArray[np.bool_], least: int, keep_largest: bool) -> NDArray[np.bool_]:
    """Returns the connected regions (over 8 neighbours) with at least `least` pixels.

    `keep_largest`: the largest one stays whatever its size.
    """
    count, regions, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), None)
    areas = statistics[:, cv2.CC_STAT_AREA]
    stays = areas >= least
    stays[0] = False  # the background
    if keep_largest and count > 1 and not stays.any():
        stays[1 + int(areas[1:].argmax())] = True
    return stays[regions]
