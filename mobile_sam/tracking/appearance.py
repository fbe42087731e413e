"""What an object looks like: its pixels, which move with it, and its colours, which stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mobile_sam.segments import tight_box
from mobile_sam.tracking.motion import Motion, compose, shift

_LEVELS = 16  # of red, of green and of blue
_CODES = _LEVELS**3
_SURROUNDINGS = 32  # pixels that a template shows around its object
_NEVER_SEEN = 1e-5  # share of a colour that neither the object nor its surroundings have
_RATE = 0.05  # at which colours change, when they are learnt
_LEAST_SIDE = 8


def colour_codes(image: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Returns the colour of each pixel as a number below 4096, int32 (H, W), without noise."""
    level = cv2.blur(image, (3, 3)).astype(np.int32) * _LEVELS // 256
    return (level[..., 0] * _LEVELS + level[..., 1]) * _LEVELS + level[..., 2]


def histogram(codes: NDArray[np.int32]) -> NDArray[np.float64]:
    """Returns how often each colour occurs, as a share: float64 (4096,)."""
    counts = np.bincount(codes.ravel(), minlength=_CODES).astype(float)
    return counts / max(counts.sum(), 1)


def similarity(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Returns Bhattacharyya's coefficient of two histograms: 1 for equal ones, 0 for strangers."""
    return float(np.sqrt(one * other).sum())


class Colours:
    """The colours of an object, and those that it has to be told from.

    Attributes:
        own, around: float64 (4096,), how often each occurs in it and around it.
        table: float32 (4096,), see `likelihood`; `tell_apart` makes it.
        usual: the mean likelihood of its own colours, which is low where others have them as well.
    """

    def __init__(self, codes: NDArray[np.int32], mask: NDArray[np.bool_]) -> None:
        """Takes them from an image's codes, and the object's mask in it."""
        self.own = histogram(codes[mask])
        self.around = histogram(codes[~mask])
        self.table: NDArray[np.float32]
        self.usual: float
        tell_apart([self])

    @classmethod
    def restored(cls, values: Mapping[str, NDArray]) -> Colours:
        """Returns colours of which `vars` are these."""
        colours = cls.__new__(cls)
        vars(colours).update(values)
        return colours

    def learn(self, codes: NDArray[np.int32], mask: NDArray[np.bool_]) -> None:
        """Changes the colours a little towards those in another image."""
        self.own += _RATE * (histogram(codes[mask]) - self.own)
        self.around += _RATE * (histogram(codes[~mask]) - self.around)

    def likelihood(self, codes: NDArray[np.int32]) -> NDArray[np.float32]:
        """Returns how likely a pixel of that colour is the object's rather than another's: 0 to 1,
        0.5 for colours that nobody has."""
        return self.table[codes]


def tell_apart(objects: Sequence[Colours]) -> None:
    """Tells each of some objects from its surroundings and from the others; see `likelihood`.

    It takes a time that grows with their number only: the most that the others have of a colour is
    the most that anybody has, or the second most if that is the object's own.
    """
    most, second = np.zeros(_CODES), np.zeros(_CODES)
    for colours in objects:
        second = np.maximum(second, np.minimum(most, colours.own))
        most = np.maximum(most, colours.own)
    for colours in objects:
        others = np.where(colours.own == most, second, most)
        around = np.maximum(colours.around, others / 2)
        own, around = _smooth(np.stack([colours.own, around]))
        table = (own + _NEVER_SEEN) / (own + around + 2 * _NEVER_SEEN)
        colours.table = table.astype(np.float32)
        colours.usual = float(colours.own @ table)


def _smooth(histograms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gives each colour's neighbours a part of it, as light and noise do: (N, 4096)."""
    cubes = histograms.reshape(-1, _LEVELS, _LEVELS, _LEVELS)
    for axis in (1, 2, 3):
        cubes = np.moveaxis(cubes, axis, 0)
        padded = np.concatenate([cubes[:1], cubes, cubes[-1:]])
        cubes = (padded[:-2] + 2 * cubes + padded[2:]) / 4
        cubes = np.moveaxis(cubes, 0, axis)
    return cubes.reshape(histograms.shape)


@dataclass(frozen=True, eq=False)
class Template:
    """An object's pixels, with some around it, as cut out of an image.

    Attributes:
        image: uint8 (h, w, 3), RGB.
        mask: bool (h, w): the object, also the parts of it that were hidden at last.
        x, y: where (0, 0) lies in the image, in pixels.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    x: int
    y: int

    @classmethod
    def cut(cls, image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> Template:
        """Cuts the object in `mask`, bool (H, W), out of an image (H, W, 3)."""
        window = cls.window_of(mask)
        rows, columns = window
        return cls(image[window].copy(), mask[window].copy(), columns.start, rows.start)

    @staticmethod
    def window_of(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
        """Returns the rows and columns that are cut out for the object in `mask`, bool (H, W)."""
        x0, y0, x1, y1 = tight_box(mask).astype(int)
        rows = slice(max(0, y0 - _SURROUNDINGS), y1 + _SURROUNDINGS)
        columns = slice(max(0, x0 - _SURROUNDINGS), x1 + _SURROUNDINGS)
        return rows, columns

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the image."""
        height, width = self.mask.shape
        return slice(self.y, self.y + height), slice(self.x, self.x + width)

    @property
    def centre(self) -> tuple[float, float]:
        """x, y of the middle of the object's box, in the image."""
        x0, y0, x1, y1 = tight_box(self.mask)
        return self.x + (x0 + x1) / 2, self.y + (y0 + y1) / 2

    def moved(self, motion: Motion, image_hw: tuple[int, int]) -> Template | None:
        """Returns it after a motion, cut to the image; None if it lies outside."""
        x0, y0, x1, y1 = tight_box(self.mask)
        corners = np.array([[x0, y0, 1], [x1, y0, 1], [x0, y1, 1], [x1, y1, 1]], float)
        corners[:, :2] += self.x, self.y
        corners = corners @ motion.T
        low = np.floor(corners.min(axis=0)).astype(int) - _SURROUNDINGS
        high = np.ceil(corners.max(axis=0)).astype(int) + _SURROUNDINGS
        low, high = np.maximum(low, 0), np.minimum(high, image_hw[::-1])
        if (high - low < _LEAST_SIDE).any():
            return None
        place = motion.copy()
        place[:, 2] = motion @ (self.x, self.y, 1) - low
        size = (int(high[0] - low[0]), int(high[1] - low[1]))
        image = cv2.warpAffine(self.image, place, size, borderMode=cv2.BORDER_REPLICATE)
        mask = cv2.warpAffine(self.mask.astype(np.uint8) * 255, place, size) > 127
        return Template(image.astype(np.uint8, copy=False), mask, int(low[0]), int(low[1]))

    def bent(self, places: NDArray[np.float32]) -> Template:
        """Returns it with each pixel taken from another place of it: x, y, float32 (h, w, 2)."""
        x, y = cv2.split(places)
        image = cv2.remap(self.image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        mask = cv2.remap(self.mask.astype(np.uint8) * 255, x, y, cv2.INTER_LINEAR) > 127
        return Template(image.astype(np.uint8, copy=False), mask, self.x, self.y)

    def within(self, motion: Motion) -> Motion:
        """Returns a motion in pixels of this template as one in pixels of the image."""
        return compose(shift(self.x, self.y), compose(motion, shift(-self.x, -self.y)))

    def renewed(self, image: NDArray[np.uint8], seen: NDArray[np.bool_]) -> Template:
        """Returns it with the pixels that are `seen`, bool (h, w), as they are in an image now."""
        pixels = np.where(seen[..., None], image[self.window], self.image)
        return Template(pixels, self.mask, self.x, self.y)
