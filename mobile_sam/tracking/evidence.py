"""Where in an image an object is, as far as its template and its colours say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mobile_sam.tracking.appearance import Colours, Template, colour_codes
from mobile_sam.tracking.motion import Motion, bend, compose, follow, shift

LEAST_AREA = 20  # pixels, for an object to be there
_NOISE = 16.0  # levels that a pixel of the object may differ from its template
_OWN, _STRANGE = 0.8, 0.15  # likelihoods of colours that surely are the object's, and are not
_SMALLER = 0.8  # of its usual area: an object that is smaller may grow again
_GROWTH = 0.6  # weight of colours beside the template, where it may
_NEAR, _FAR = -0.5, -1.0
_REACH = 6  # pixels beside what is seen where more of it may be
_DRIFT = 8  # pixels beside the template where its colours are looked for
_BETTER = 0.02
_STIFF = 0.85  # of the template, from which on it moved like a similarity
_SQUEEZED, _STRETCHED = 0.9, 1.1  # by bending, at most
_SEARCH_SHARE = 0.3  # of a window of the object's size that has to have its colours
_FOUND_SHARE = 0.25  # of its area that has to be in one piece
_BELIEVED = 0.5  # from which on a pixel is thought to be the object's
_LEAST_BELIEVED = 0.3  # of its area, for an object to be there
_LEAST_CELLS = 8  # that it has: of less, cells are too coarse to say much
_BESIDE = np.ones((7, 7), np.uint8)  # up to 3 pixels beside a mask
_FIRMLY = 0.6  # believed, to say that a mask lacks a part
_LACKING = 0.05  # of what is beside a mask, that would have to be in it
CROSS = np.ones((3, 3), np.uint8)


@dataclass(frozen=True, eq=False)
class View:
    """What one image shows, prepared once for all objects.

    image: uint8 (H, W, 3), RGB; grey: uint8 (H, W); codes: as `colour_codes` has them.
    """

    image: NDArray[np.uint8]
    grey: NDArray[np.uint8]
    codes: NDArray[np.int32]

    @classmethod
    def of(cls, image: NDArray[np.uint8]) -> View:
        """Prepares an image."""
        return cls(image, _grey(image), colour_codes(image))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.grey.shape


@dataclass(frozen=True, eq=False)
class Evidence:
    """What speaks for an object, in the window of its template.

    Attributes:
        template: where it is thought to be.
        motion: from the template that it was, None if it was looked for anew.
        seen: bool (h, w), what can be seen of it.
        share: of the template that is seen.
        field: float32 (h, w), -1 to 1: whether a mask gains or loses by a pixel.
        difference: levels that what is seen differs from the template, on average.
        is_remembered: whether it is SAM's features that say so.
    """

    template: Template
    motion: Motion | None
    seen: NDArray[np.bool_]
    share: float
    field: NDArray[np.float32]
    difference: float
    is_remembered: bool = False


def _grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False)


def predict(
    template: Template,
    colours: Colours,
    area: float,
    noise: float,
    motion: Motion,
    view: View,
    belief: NDArray[np.float32] | None = None,
    is_touched: bool = False,
) -> Evidence | None:
    """Looks for an object where its motion says, and beside that: where optical flow and where its
    colours say. The place where most of it is seen counts.

    Args:
        template: as it was seen last.
        colours: its colours.
        area: pixels it has when all of it is seen.
        noise: levels that its pixels differ from image to image.
        motion: from the template to this image, as expected.
        view: of this image.
        belief: float32 (h, w), how much of each cell is the object's (`memory`), if that is known:
            where an object may grow that is smaller than usual.
        is_touched: whether other things lie beside it, which it must not take in: it grows by its
            own colours only.

    Returns:
        What was found, or None if it lies outside of the image.
    """
    expected = template.moved(motion, view.size)
    if expected is None or np.count_nonzero(expected.mask) < LEAST_AREA:
        return None
    best: Evidence | None = None
    for option in (motion, *_corrections(expected, colours, motion, view)):
        moved = template.moved(option, view.size)
        if moved is None or np.count_nonzero(moved.mask) < LEAST_AREA:
            continue
        found = _compare(moved, option, colours, area, noise, view, belief, is_touched)
        if best is None or found.share > best.share + _BETTER:
            best = found
    if best is None or best.share >= _STIFF:
        return best
    bent = _bent(best.template, view)
    if bent is None:
        return best
    found = _compare(bent, best.motion, colours, area, noise, view, belief, is_touched)
    return found if found.share > best.share + _BETTER else best


def _bent(template: Template, view: View) -> Template | None:
    """Returns a template as dense optical flow bends it, or None if that says nothing: where a part
    of the object is hidden, flow squeezes the template into what is left."""
    places = bend(_grey(template.image), view.grey[template.window])
    if places is None:
        return None
    bent = template.bent(places)
    size = np.count_nonzero(bent.mask) / np.count_nonzero(template.mask)
    return bent if _SQUEEZED < size < _STRETCHED else None


def _corrections(
    expected: Template, colours: Colours, motion: Motion, view: View
) -> Iterable[Motion]:
    flow = follow(_grey(expected.image), view.grey[expected.window], expected.mask)
    if flow is not None:
        yield compose(expected.within(flow), motion)
    likelihood = colours.likelihood(view.codes[expected.window])
    reach = cv2.dilate(expected.mask.astype(np.uint8), CROSS, iterations=_DRIFT)
    weight = np.clip(2 * likelihood - 1, 0, 1) * reach
    if weight.sum() > _SEARCH_SHARE * np.count_nonzero(expected.mask):
        (x, y), (x0, y0) = middle(weight), middle(expected.mask)
        yield compose(shift(x - x0, y - y0), motion)


def middle(weight: NDArray) -> tuple[float, float]:
    """Returns x, y of the centre of mass of some weights (h, w)."""
    rows, columns = weight.sum(axis=1), weight.sum(axis=0)
    y = rows @ np.arange(len(rows)) / rows.sum()
    return float(columns @ np.arange(len(columns)) / columns.sum()), float(y)


def _compare(
    moved: Template,
    motion: Motion | None,
    colours: Colours,
    area: float,
    noise: float,
    view: View,
    belief: NDArray[np.float32] | None,
    is_touched: bool,
) -> Evidence:
    mask = moved.mask
    difference = cv2.blur(cv2.absdiff(view.image[moved.window], moved.image), (5, 5)).mean(axis=2)
    likelihood = colours.likelihood(view.codes[moved.window])
    alike = (difference < max(_NOISE, 3 * noise)) | (likelihood > min(_OWN, colours.usual))
    seen = mask & alike & (likelihood > _STRANGE)
    seen = cv2.morphologyEx(seen.astype(np.uint8), cv2.MORPH_OPEN, CROSS) > 0
    like_it = likelihood > 0.5
    beside = np.where(like_it, _NEAR, _FAR)
    if np.count_nonzero(mask) < _SMALLER * area:
        near = cv2.dilate(seen.astype(np.uint8), CROSS, iterations=_REACH) > 0
        most = np.where(near, likelihood, 0)
        if belief is not None:
            own = _of_pixels(belief, view)[moved.window]
            is_own = (own > _BELIEVED) & (likelihood > (0.5 if is_touched else _STRANGE))
            most = np.where(is_own, np.maximum(likelihood, own), most)
        beside = np.where(most > 0.5, _GROWTH * (2 * most - 1), beside)
    return Evidence(
        moved,
        motion,
        seen,
        np.count_nonzero(seen) / np.count_nonzero(mask),
        np.where(mask, np.where(seen, 1, -1), beside).astype(np.float32),
        float(difference[seen].mean()) if seen.any() else noise,
    )


def lacks_a_part(
    mask: NDArray[np.bool_], colours: Colours, belief: NDArray[np.float32] | None, view: View
) -> bool:
    """Returns whether an object goes on beside its mask, as its colours say or SAM's features.

    Args:
        mask: bool (H, W).
        colours: its colours.
        belief: float32 (h, w), how much of each cell is the object's (`memory`), if that is known.
        view: of the image.
    """
    window = Template.window_of(mask)
    inside = mask[window].astype(np.uint8)
    beside = cv2.dilate(inside, _BESIDE) > inside
    likelihood = colours.likelihood(view.codes[window][beside])
    own = likelihood > _OWN
    if belief is not None:
        believed = _of_pixels(belief, view)[window][beside]
        own |= (believed > _FIRMLY) & (likelihood > _STRANGE)
    return bool(np.count_nonzero(own) > _LACKING * np.count_nonzero(beside))


def search(
    colours: Colours, area: float, taken: Iterable[NDArray[np.bool_]], view: View
) -> Evidence | None:
    """Looks for an object in the whole image, by its colours.

    Args:
        colours: its colours.
        area: pixels it has when all of it is seen.
        taken: bool (H, W) each, where other objects are.
        view: of the image.

    Returns:
        The largest piece with its colours, or None.
    """
    likelihood = colours.likelihood(view.codes)
    likelihood = np.where(likelihood > 0.5, likelihood, 0)
    for mask in taken:
        likelihood[mask] = 0
    side = int(np.sqrt(area)) | 1
    density = cv2.blur(likelihood, (side, side))
    y, x = (int(i) for i in np.unravel_index(density.argmax(), density.shape))
    if density[y, x] < _SEARCH_SHARE:
        return None
    rows, columns = slice(max(0, y - side), y + side), slice(max(0, x - side), x + side)
    own = cv2.morphologyEx((likelihood[rows, columns] > 0).astype(np.uint8), cv2.MORPH_OPEN, CROSS)
    count, pieces, statistics, _ = cv2.connectedComponentsWithStats(own)
    if count < 2:
        return None
    piece = pieces == 1 + statistics[1:, cv2.CC_STAT_AREA].argmax()
    if np.count_nonzero(piece) < max(_FOUND_SHARE * area, LEAST_AREA):
        return None
    template = Template(view.image[rows, columns].copy(), piece, columns.start, rows.start)
    field = np.where(piece, 1, -1).astype(np.float32)
    return Evidence(template, None, piece, 1.0, field, 0.0)


def remembered(
    belief: NDArray[np.float32], area: float, taken: NDArray[np.bool_], view: View
) -> Evidence | None:
    """Makes evidence of what SAM's features say.

    Args:
        belief: float32 (h, w), how much of each cell is the object's (`memory`).
        area: pixels the object has when all of it is seen.
        taken: bool (H, W), where other objects are: nothing there is its own.
        view: of the image.

    Returns:
        What was found, or None if it is too little, or the object too small.
    """
    if area * belief.size < _LEAST_CELLS * view.grey.size:
        return None
    fine = np.where(taken, 0, _of_pixels(belief, view))
    own = fine > _BELIEVED
    if np.count_nonzero(own) < max(LEAST_AREA, _LEAST_BELIEVED * area):
        return None
    template = Template.cut(view.image, own)
    field = (2 * fine - 1)[template.window].astype(np.float32)
    return Evidence(template, None, template.mask, 1.0, field, 0.0, is_remembered=True)


def _of_pixels(belief: NDArray[np.float32], view: View) -> NDArray[np.float32]:
    """Returns for each pixel of an image, (H, W), what is believed of its cell, (h, w)."""
    fine = cv2.resize(belief, view.size[::-1], interpolation=cv2.INTER_LINEAR)
    return fine.astype(np.float32, copy=False)


def agreement_of(masks: NDArray, field: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns for each mask (N, m, m), 0 to 1, what it gains of a field (m, m), of all there is to
    gain and what it loses: as IoU does, for a field of -1 and 1."""
    gain = (masks * np.maximum(field, 0)).sum(axis=(1, 2))
    loss = (masks * np.maximum(-field, 0)).sum(axis=(1, 2))
    return gain / np.maximum(np.maximum(field, 0).sum() + loss, 1e-6)
