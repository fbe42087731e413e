"""Training samples: a picture, some of its objects, a prompt for each."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from mobile_sam.modeling import PointLabel, SamConfig
from mobile_sam.predictor import scaled_size
from mobile_sam.segments import inner_points, tight_box
from mobile_sam.training.batches import index_at
from mobile_sam.training.examples import Example, Examples, ExamplesError
from mobile_sam.training.unlabelled import square

# Kinds of prompt and how often each is drawn.
_KINDS = ("box", "point", "points", "box and point")
_KIND_SHARES = (0.56, 0.28, 0.08, 0.08)
_MASK_SHARE = 0.06  # of all prompts have a mask as well
_TOKENS = 5  # a prompt's points, at most, with the filler
_FLIPPED = 0.5  # of the pictures that are not drawn


@dataclass(frozen=True)
class Samples:
    """A batch of B pictures with P prompts each.

    pixels: uint8 (B, 3, S, S), RGB.
    scene_labels: int32 (B, S, S), 0 for the background, i for object i.
    points, labels: float32 (B P, T, 2) and int64 (B P, T), as `Sam.decode` takes them.
    mask_logits, has_mask: float32 (B P, 1, m, m) and bool (B P,).
    targets: float32 (B P, m, m), the share of each cell that is the object.
    ambiguous: bool (B P,), whether the prompt is a single point.
    """

    pixels: Tensor
    scene_labels: Tensor
    points: Tensor
    labels: Tensor
    mask_logits: Tensor
    has_mask: Tensor
    targets: Tensor
    ambiguous: Tensor


def jittered(box: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Returns a box as a detector may give it: each side off by a few per cent of the size."""
    size = np.tile(box[2:] - box[:2], 2)
    shift = np.clip(rng.normal(0, 0.05, 4), -0.12, 0.12) * rng.uniform(0, 1)
    return (box + np.clip(shift * size, -20, 20)).astype(np.float32)


def _random_points(
    mask: NDArray[np.bool_], count: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    y, x = np.nonzero(mask)
    chosen = rng.integers(len(x), size=count)
    return np.stack([x[chosen], y[chosen]], axis=1).astype(np.float32)


def _background_points(
    mask: NDArray[np.bool_], count: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Points around the object but not on it: there a click to correct would be."""
    near = cv2.dilate(mask.astype(np.uint8), np.ones((25, 25), np.uint8)) > 0
    candidates = near & ~mask
    return _random_points(candidates if candidates.any() else ~mask, count, rng)


def _draw_prompt(
    mask: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64], bool]:
    """Returns points (T, 2), labels (T,), and whether it is a single point."""
    points = np.zeros((_TOKENS, 2), np.float32)
    labels = np.full(_TOKENS, PointLabel.NONE, np.int64)
    kind = rng.choice(_KINDS, p=_KIND_SHARES)
    used = 0
    if "point" in kind:
        foreground = int(rng.integers(1, 4)) if kind == "points" else 1
        one = inner_points(mask, 1) if rng.random() < 0.3 else _random_points(mask, 1, rng)
        points[:1], points[1:foreground] = one, _random_points(mask, foreground - 1, rng)
        labels[:foreground] = PointLabel.FOREGROUND
        used = foreground
        if kind == "points" and not mask.all():
            points[used] = _background_points(mask, 1, rng)[0]
            labels[used] = PointLabel.BACKGROUND
            used += 1
    if "box" in kind:
        points[used : used + 2] = jittered(tight_box(mask), rng).reshape(2, 2)
        labels[used : used + 2] = (PointLabel.BOX_MINIMUM, PointLabel.BOX_MAXIMUM)
    else:
        labels[used] = PointLabel.NOT_A_POINT
    return points, labels, bool(kind == "point")


def _rough_mask(target: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Returns logits (m, m) of a mask that is nearly right: shifted, grown or shrunk, blurred."""
    side = len(target)
    shift = np.eye(2, 3, dtype=np.float64)
    shift[:, 2] = rng.normal(0, 0.02 * side, 2)
    moved = cv2.warpAffine(target, shift, (side, side))
    kernel = np.ones((3, 3), np.uint8)
    change = cv2.dilate if rng.random() < 0.5 else cv2.erode
    moved = change(moved, kernel, iterations=int(rng.integers(0, 3)))
    blurred = cv2.GaussianBlur(moved, (0, 0), rng.uniform(0.5, 3))
    return ((blurred - 0.5) * rng.uniform(8, 24)).astype(np.float32)


class PromptSamples(Dataset[tuple[NDArray, ...]]):
    """Samples of one picture each, by their position in an endless row."""

    def __init__(
        self, sources: Sequence[Examples], config: SamConfig, prompts: int, seed: int
    ) -> None:
        """Draws `prompts` prompts for objects of each example, at the sizes of `config`; the
        examples are taken of the sources in turn."""
        self.sources, self.prompts, self.seed = sources, prompts, seed
        self.size, self.mask_size = config.image_size, config.mask_size

    def __getitem__(self, position: int) -> tuple[NDArray, ...]:
        cv2.setNumThreads(1)  # as many processes as there are cores do this at once
        rng = np.random.default_rng((self.seed, position))
        example, masks = self._example(position, rng)
        pixels = square(example.image, self.size).numpy()
        order = rng.permutation(len(masks))
        chosen = [masks[order[i % len(masks)]] for i in range(self.prompts)]
        prompts = [_draw_prompt(mask, rng) for mask in chosen]
        points, labels, ambiguous = (np.stack(c) for c in zip(*prompts, strict=True))
        m = self.mask_size
        targets = np.stack(
            [cv2.resize(c.astype(np.float32), (m, m), interpolation=cv2.INTER_AREA) for c in chosen]
        )
        has_mask = rng.random(self.prompts) < _MASK_SHARE
        rough = np.stack(
            [
                _rough_mask(t, rng) if has else np.zeros_like(t)
                for t, has in zip(targets, has_mask, strict=True)
            ]
        )
        scene_labels = _labels(masks, self.size)
        prompts_of = (points, labels, rough[:, None], has_mask, targets, ambiguous & ~has_mask)
        return pixels, scene_labels, *prompts_of

    def _example(
        self, position: int, rng: np.random.Generator
    ) -> tuple[Example, list[NDArray[np.bool_]]]:
        """Returns an example and its masks, bool (S, S), as the model sees them, one or more."""
        position, turn = divmod(position, len(self.sources))
        examples = self.sources[turn]
        count = examples.count
        number = position if count is None else index_at(position, count, self.seed)
        for _ in range(count or 1):
            example = examples.get(number)
            if count is not None and rng.random() < _FLIPPED:
                example = _flipped(example)
            fitted = (_fitted(mask, self.size) for mask in example.masks)
            masks = [mask for mask in fitted if mask.any()]  # scaled down, some are gone
            if masks:
                return example, masks
            number = (number + 1) % (count or 1)
        raise ExamplesError(f"no example has an object that is seen at {self.size} pixels")


def _flipped(example: Example) -> Example:
    masks = tuple(mask[:, ::-1] for mask in example.masks)
    return Example(example.name, np.ascontiguousarray(example.image[:, ::-1]), masks)


def _fitted(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """Returns a mask, bool (H, W), scaled and padded as `square` does: bool (size, size)."""
    height, width = scaled_size(mask.shape, size)
    scaled = cv2.resize(
        mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT
    )
    return np.pad(scaled > 0, ((0, size - height), (0, size - width)))


def _labels(masks: list[NDArray[np.bool_]], size: int) -> NDArray[np.int32]:
    """Returns which object each pixel is of, int32 (size, size), the smaller one where two are."""
    labels = np.zeros((size, size), np.int32)
    for i in np.argsort([-np.count_nonzero(mask) for mask in masks]):
        labels[masks[i]] = i + 1
    return labels


def collate(parts: Sequence[tuple[NDArray, ...]]) -> Samples:
    """Makes a batch of samples."""
    columns = [torch.from_numpy(np.stack(column)) for column in zip(*parts, strict=True)]
    pixels, scene_labels, *others = columns
    return Samples(pixels, scene_labels, *(column.flatten(0, 1) for column in others))
