"""What to segment: the user's prompts, checked, and as the decoder takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mobile_sam.modeling import PointLabel


@dataclass(frozen=True, eq=False)
class Prompt:
    """One object, shown by a box, by points, by a mask, or by several of these together.

    Coordinates are pixels of the image, x to the right and y down. A box is half-open: its
    maxima are the first column and row outside. A point names a pixel: (0, 0) is the first one.
    Points and boxes may lie partly outside of the image.

    Attributes:
        box: x_min, y_min, x_max, y_max; float32 (4,) once made.
        points: x, y of each; float32 (K, 2).
        labels: 1 where the object is, 0 where it is not; int64 (K,). Without it: all 1.
        mask_logits: float32 (m, m), low-resolution logits as `Segments.logits` has them, or as
            `Predictor.mask_logits` makes them of a mask.
        name: what messages about it call the object.

    Raises:
        ValueError: empty, of a wrong shape, not finite, or a box without an inside; the message
            names the object, the field and the value.
    """

    box: NDArray[np.float32] | None = None
    points: NDArray[np.float32] | None = None
    labels: NDArray[np.int64] | None = None
    mask_logits: NDArray[np.float32] | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        try:
            self._check()
        except ValueError as error:
            if self.name is None:
                raise
            raise ValueError(f"prompt {self.name!r}: {error}") from None

    def _check(self) -> None:
        if self.labels is not None and self.points is None:
            raise ValueError("labels without points")
        if self.box is None and self.points is None and self.mask_logits is None:
            raise ValueError("a prompt needs a box, points or mask_logits")
        if self.box is not None:
            self._set("box", _finite("box", self.box, (4,)))
            if not (self.box[2] > self.box[0] and self.box[3] > self.box[1]):
                raise ValueError(f"box {self.box.tolist()} has no inside (minima, maxima)")
        if self.points is not None:
            self._set("points", _finite("points", self.points, (None, 2)))
            given = np.ones(len(self.points)) if self.labels is None else np.asarray(self.labels)
            if given.shape != (len(self.points),):
                raise ValueError(f"labels has shape {given.shape}, for {len(self.points)} points")
            if not np.isin(given, (0, 1)).all():
                raise ValueError(f"labels {given.tolist()}: 1 is the object, 0 is not, no more")
            self._set("labels", given.astype(np.int64))
        if self.mask_logits is not None:
            logits = _finite("mask_logits", self.mask_logits, (None, None))
            if logits.shape[0] != logits.shape[1]:
                raise ValueError(f"mask_logits has shape {logits.shape}, which is not square")
            self._set("mask_logits", logits)

    def _set(self, name: str, value: NDArray) -> None:
        object.__setattr__(self, name, value)

    @property
    def is_ambiguous(self) -> bool:
        """Whether it is a single point and nothing else, which may mean a part or the whole."""
        alone = self.box is None and self.mask_logits is None
        return alone and self.points is not None and len(self.points) == 1


def _finite(name: str, value: ArrayLike, shape: tuple[int | None, ...]) -> NDArray[np.float32]:
    array = np.asarray(value, dtype=np.float32)
    fits = array.ndim == len(shape) and all(
        wanted in (None, found) for wanted, found in zip(shape, array.shape, strict=True)
    )
    if not fits or array.size == 0:
        wanted_text = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} has shape {array.shape}, not ({wanted_text})")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} {array.tolist()} is not finite")
    return array


@dataclass(frozen=True)
class PromptBatch:
    """N prompts as `Sam.decode` takes them: its arguments, without the embedding."""

    points: Tensor
    labels: Tensor
    mask_logits: Tensor | None
    has_mask: Tensor | None


def batch_prompts(
    prompts: Sequence[Prompt], scale_xy: tuple[float, float], mask_size: int
) -> PromptBatch:
    """Puts prompts of any kinds into one batch.

    Args:
        prompts: N of them, at least one.
        scale_xy: pixels of the scaled picture to a pixel of the image, in x and y.
        mask_size: side of the low-resolution logits.

    Raises:
        ValueError: a mask prompt of another size; the message says which prompt.
    """
    rows = [_tokens(prompt, np.array(scale_xy, np.float32)) for prompt in prompts]
    longest = max(len(labels) for _, labels in rows)
    points = np.zeros((len(rows), longest, 2), np.float32)
    labels = np.full((len(rows), longest), PointLabel.NONE, np.int64)
    for i, (row_points, row_labels) in enumerate(rows):
        points[i, : len(row_labels)] = row_points
        labels[i, : len(row_labels)] = row_labels
    has_mask = [prompt.mask_logits is not None for prompt in prompts]
    masks = None
    if any(has_mask):
        stack = np.zeros((len(rows), 1, mask_size, mask_size), np.float32)
        for i, prompt in enumerate(prompts):
            if prompt.mask_logits is None:
                continue
            if prompt.mask_logits.shape != (mask_size, mask_size):
                name = i if prompt.name is None else repr(prompt.name)
                raise ValueError(
                    f"prompt {name}: mask_logits has shape {prompt.mask_logits.shape}, this model "
                    f"needs ({mask_size}, {mask_size})"
                )
            stack[i, 0] = prompt.mask_logits
        masks = torch.from_numpy(stack)
    return PromptBatch(
        torch.from_numpy(points),
        torch.from_numpy(labels),
        masks,
        None if masks is None or all(has_mask) else torch.tensor(has_mask),
    )


def _tokens(
    prompt: Prompt, scale: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Points and labels of one prompt, in the order of upstream: points, then box or filler."""
    points: list[NDArray[np.float32]] = []
    labels: list[int] = []
    if prompt.points is not None and prompt.labels is not None:
        points += list(prompt.points * scale)
        labels += prompt.labels.tolist()
    if prompt.box is not None:
        points += list(prompt.box.reshape(2, 2) * scale)
        labels += [PointLabel.BOX_MINIMUM, PointLabel.BOX_MAXIMUM]
    elif prompt.points is not None:
        points.append(np.zeros(2, np.float32))
        labels.append(PointLabel.NOT_A_POINT)
    return np.array(points, np.float32).reshape(-1, 2), np.array(labels, np.int64)
