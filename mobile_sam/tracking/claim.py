"""What SAM is asked about an object, and whether the mask that it gives can be the object's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mobile_sam.predictor import scaled_size
from mobile_sam.prompts import Prompt
from mobile_sam.segments import inner_points, tight_box
from mobile_sam.tracking.evidence import Evidence, View
from mobile_sam.tracking.track import Track

_POINTS = 3
_MARGIN = np.array((-1, -1, 1, 1), np.float32)  # pixels around a box
_GROWN = 1.1  # times what is seen, from which on SAM is asked for more than that
_LEAST_AGREEMENT = 0.5
_LEAST_AGREEMENT_FOUND = 0.4
_BY_AGREEMENT, _BY_LIKELIHOOD = 0.4, 0.5  # weights beside the similarity's, which is 1
_LEAST_SUPPORT = 1.55  # of 1.9, by all three
_SURE_SUPPORT = 1.2  # of 1.4, by similarity and agreement
_LEAST_STEADY, _MOST_STEADY = 0.85, 1.1  # times its template's size
_LARGEST = 1.5  # times its template's size
_LEAST_SIMILARITY_FOUND = 0.75
SURE_SIMILARITY = 0.9
_LEAST_AGREEMENT_REMEMBERED, _LEAST_BELIEF = 0.6, 0.6
_SMALLER, _LARGER = 0.3, 1.8  # than its usual area
_OVERLAP = 0.5  # of the smaller mask, from which on two objects cannot both be right
_CLEARLY = 0.2  # likelier one object's colours than another's


@dataclass(frozen=True, eq=False)
class Claim:
    """A mask that an object may have in an image."""

    evidence: Evidence
    mask: NDArray[np.bool_]
    agreement: float
    similarity: float
    logits: Tensor
    predicted_iou: float

    @property
    def rank(self) -> float:
        return self.similarity + 0.2 * self.agreement

    @property
    def support(self) -> float:
        """What speaks for it, beside its likelihood."""
        return self.similarity + _BY_AGREEMENT * self.agreement

    @property
    def size(self) -> float:
        """Times its template's."""
        return np.count_nonzero(self.mask) / np.count_nonzero(self.evidence.template.mask)

    @property
    def belief(self) -> float:
        """How much of it is the object's, where it is SAM's features that say where that is."""
        inside = self.evidence.field[self.mask[self.evidence.template.window]]
        return float((inside + 1).sum() / (2 * np.count_nonzero(self.mask)))

    @property
    def confidence(self) -> float:
        """0 to 1, how well it agrees with where the object is thought to be, and looks like it."""
        alike = self.belief if self.evidence.is_remembered else self.similarity
        return min(1.0, self.agreement * alike)

    @property
    def is_sure(self) -> bool:
        """Whether the object's area and colours may be learnt from it."""
        is_steady = _LEAST_STEADY < self.size < _MOST_STEADY
        return self.similarity > SURE_SIMILARITY or (self.support > _SURE_SUPPORT and is_steady)


def prompts_of(evidence: Evidence, is_object: bool) -> list[Prompt]:
    """Returns what to ask SAM: the box and a point for what is seen; for an object that somebody
    asked for, also points for the whole, and the box and points for what it may have grown to."""
    origin = np.array((evidence.template.x, evidence.template.y), np.float32)

    def points(part: NDArray[np.bool_]) -> NDArray[np.float32]:
        return inner_points(part, _POINTS) + origin

    def box(part: NDArray[np.bool_]) -> NDArray[np.float32]:
        return tight_box(part) + np.tile(origin, 2) + _MARGIN

    seen, grown = evidence.seen, evidence.field > 0
    of_seen = points(seen)
    asked = [Prompt(box=box(seen), points=of_seen[:1])]
    if not is_object:
        return asked
    asked.append(Prompt(points=of_seen))
    if np.count_nonzero(grown) > _GROWN * np.count_nonzero(seen):
        asked.append(Prompt(box=box(grown), points=points(grown)))
    return asked


def raster_of(evidence: Evidence, image_hw: tuple[int, int], side: int) -> NDArray[np.float32]:
    """Returns an evidence's field on the raster of the logits, -1 where it says nothing."""
    field = np.full(image_hw, -1, np.float32)
    field[evidence.template.window] = evidence.field
    height, width = scaled_size(image_hw, side)
    raster = np.full((side, side), -1, np.float32)
    raster[:height, :width] = cv2.resize(field, (width, height), interpolation=cv2.INTER_AREA)
    return raster


def is_good(claim: Claim, track: Track, view: View) -> bool:
    """Returns whether a mask is the object's."""
    area = float(np.count_nonzero(claim.mask))
    if claim.evidence.is_remembered:
        largest = max(track.area, float(np.count_nonzero(track.template.mask)))
        return (
            claim.agreement >= _LEAST_AGREEMENT_REMEMBERED
            and claim.belief >= _LEAST_BELIEF
            and _SMALLER * track.area < area < _LARGER * largest
        )
    if claim.evidence.motion is None:
        return (
            claim.similarity >= _LEAST_SIMILARITY_FOUND
            and claim.agreement >= _LEAST_AGREEMENT_FOUND
            and _SMALLER * track.area < area < _LARGER * track.area
        )
    likelihood = float(track.colours.likelihood(view.codes[claim.mask]).mean())
    by_likelihood = _BY_LIKELIHOOD * min(1.0, likelihood / track.colours.usual)
    return (
        claim.support + by_likelihood >= _LEAST_SUPPORT
        and claim.agreement >= _LEAST_AGREEMENT
        and claim.size < _LARGEST
    )


def settled(claims: Mapping[Track, Claim], view: View) -> dict[Track, Claim]:
    """Leaves out claims to the same pixels: those are the object's whose colours they have, the
    clearest case first, or if that is not clear, the one's with the better claim."""
    best_first = sorted(claims, key=lambda track: -claims[track].rank)
    cases: list[tuple[float, Track, Track]] = []  # how clear it is, whose they are, whose not
    for better, worse in combinations(best_first, 2):
        one, other = claims[better].mask, claims[worse].mask
        if is_same(one, other):
            codes = view.codes[one & other]
            likelier = better.colours.likelihood(codes) - worse.colours.likelihood(codes)
            gain = float(likelier.mean())
            if gain < -_CLEARLY:
                cases.append((-gain, worse, better))
            else:
                cases.append((gain if gain > _CLEARLY else 0.0, better, worse))
    kept = dict(claims)
    for _, winner, loser in sorted(cases, key=lambda case: -case[0]):
        if winner in kept:
            kept.pop(loser, None)
    return kept


def is_same(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> bool:
    """Returns whether two masks overlap so much that two objects cannot both be right."""
    smaller = min(np.count_nonzero(one), np.count_nonzero(other))
    return bool(np.count_nonzero(one & other) > _OVERLAP * smaller)
