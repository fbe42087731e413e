"""What an object could be mistaken for: things beside it, and things of its colours.

Where it touches one of them, SAM may take both for one; where it is hidden, one of them may be
found in its place. They have to be followed to be told from it.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from mobile_sam.prompts import Prompt
from mobile_sam.segments import inner_points, tight_box
from mobile_sam.tracking.appearance import Colours, histogram, similarity
from mobile_sam.tracking.evidence import CROSS, LEAST_AREA, View, middle
from mobile_sam.tracking.track import Track

_NEAREST, _FARTHEST = 8, 64  # pixels from an object to where neighbours are looked for
_DIRECTIONS = 8  # in which they are
_REDUCED = 4  # pixels a side are one there
_SMALLEST_NEIGHBOUR, _LARGEST_NEIGHBOUR = 0.1, 0.3  # of the object, and of the image
_LEAST_IOU_NEIGHBOUR = 0.8  # as the model predicts it
_COMMON = 0.1  # of a neighbour and what is followed, at most
_AT_EDGE = 0.5  # of the side of a square of its area: what has more is the background, mostly
_PIECES = 3  # with its colours that may be lookalikes, at once
_LEAST_PIECE = 0.25  # of its area
_SMALLER_ALIKE, _LARGER_ALIKE = 0.25, 8  # than the object
_LEAST_SIMILARITY_ALIKE = 0.5


def places(
    track: Track, mask: NDArray[np.bool_], taken: NDArray[np.bool_], view: View
) -> Iterator[Prompt]:
    """Yields prompts for what there may be: boxes of lookalikes, points beside the object.

    Args:
        track: of the object.
        mask: bool (H, W), where it is.
        taken: bool (H, W), what else is followed.
        view: of the image.
    """
    for piece in _lookalikes(track.colours, mask, not track.age, taken, view):
        yield Prompt(box=tight_box(piece), points=inner_points(piece, 1))
    for point in _around(mask, taken):
        yield Prompt(points=point[None])


def other_thing(
    prompt: Prompt,
    mask: NDArray[np.bool_],
    predicted_iou: float,
    followed: NDArray[np.bool_],
    track: Track,
    view: View,
) -> NDArray[np.bool_] | None:
    """Returns what SAM found at one of the `places` as something to follow, or None.

    Args:
        prompt: the place.
        mask: bool (H, W), SAM's.
        predicted_iou: of it.
        followed: bool (H, W), all that is followed already: it is left out.
        track: of the object.
        view: of the image.
    """
    apart = mask & ~followed
    is_one = (
        _is_neighbour(mask, apart, predicted_iou, track)
        if prompt.box is None
        else _is_lookalike(apart, track, view)
    )
    return apart if is_one else None


def _lookalikes(
    colours: Colours,
    mask: NDArray[np.bool_],
    is_whole: bool,
    taken: NDArray[np.bool_],
    view: View,
) -> list[NDArray[np.bool_]]:
    """Returns the largest pieces with an object's colours, bool (H, W) each.

    If it is not sure that `mask` is all of the object, what touches it may be a part of it.
    """
    near, others = (
        cv2.dilate(each.astype(np.uint8), CROSS, iterations=_NEAREST) > 0 for each in (mask, taken)
    )
    own = (colours.likelihood(view.codes) > 0.5) & ~(near | others)
    own = cv2.morphologyEx(own.astype(np.uint8), cv2.MORPH_OPEN, CROSS) > 0
    if not is_whole:
        own |= near
    _, pieces, statistics, _ = cv2.connectedComponentsWithStats(own.astype(np.uint8))
    areas = statistics[:, cv2.CC_STAT_AREA]
    areas[0] = areas[np.unique(pieces[mask])] = 0
    least = max(_LEAST_PIECE * np.count_nonzero(mask), LEAST_AREA)
    return [pieces == k for k in np.argsort(-areas)[:_PIECES] if areas[k] >= least]


def _around(mask: NDArray[np.bool_], taken: NDArray[np.bool_]) -> list[NDArray[np.float32]]:
    """Returns points beside an object, x, y, one in each of some directions, none in `taken`."""
    height, width = mask.shape
    size = (max(1, width // _REDUCED), max(1, height // _REDUCED))
    own, others = (
        cv2.resize(each.astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA) > 0
        for each in (mask, taken)
    )
    distance = _REDUCED * cv2.distanceTransform((~own).astype(np.uint8), cv2.DIST_L2, 5)
    is_free = (distance > _NEAREST) & (distance < _FARTHEST) & ~(own | others)
    y, x = np.nonzero(is_free)
    (x0, y0), off = middle(own), np.abs(distance[is_free] - (_NEAREST + _FARTHEST) / 2)
    direction = (np.arctan2(y - y0, x - x0) / (2 * np.pi) + 0.5) * _DIRECTIONS
    points = []
    for number in range(_DIRECTIONS):
        there = np.flatnonzero(np.minimum(direction.astype(int), _DIRECTIONS - 1) == number)
        if len(there):
            place = there[off[there].argmin()]
            points.append(_REDUCED * np.array([x[place] + 0.5, y[place] + 0.5], np.float32))
    return points


def _is_lookalike(apart: NDArray[np.bool_], track: Track, view: View) -> bool:
    area = int(apart.sum())
    least = max(LEAST_AREA, _SMALLER_ALIKE * track.area)
    return least <= area < _LARGER_ALIKE * track.area and (
        similarity(histogram(view.codes[apart]), track.colours.own) >= _LEAST_SIMILARITY_ALIKE
    )


def _is_neighbour(
    mask: NDArray[np.bool_], apart: NDArray[np.bool_], predicted_iou: float, track: Track
) -> bool:
    area, common = int(mask.sum()), int((mask & ~apart).sum())
    at_edge = int(mask[[0, -1]].sum() + mask[:, [0, -1]].sum())
    least = max(LEAST_AREA, _SMALLEST_NEIGHBOUR * track.area)
    return (
        predicted_iou > _LEAST_IOU_NEIGHBOUR
        and least <= area < _LARGEST_NEIGHBOUR * mask.size
        and common < _COMMON * min(area, track.area)
        and at_edge < _AT_EDGE * area**0.5
    )
