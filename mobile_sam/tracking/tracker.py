"""Follows objects through images: what moves tells where, SAM tells what exactly.

For each object and image:

1. Its template, the pixels as they were seen last, is moved as it moved before, and corrected by
   optical flow and by its colours; if it does not fit then, it is bent. What of it looks like the
   image is what can be seen of it. One that is smaller than usual may grow to where its colours go
   on, and to where SAM's own features, which are asked for each object that somebody asked for,
   remember it.
2. SAM is asked with the box and points of what is seen, and if the object may have grown by a
   tenth, with the box and points of that. Of its masks, the one that agrees best with the evidence
   is taken.
3. A mask that does not agree, or whose colours are not the object's, is none. If the features
   remember where the object is, SAM is asked once more, for that.
4. If that is none either, something is in front of it. After a few such images it is lost, and
   looked for by its colours everywhere.
5. Of two objects that claim the same pixels, the one whose colours they have keeps its mask, or
   else the one with the better claim; the other is not seen in that image.
6. Other things are followed as well, though nobody asked for them: those around an object, so that
   it does not take in what it touches, and those that have its colours, so that it is not taken for
   one of them when it is hidden.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mobile_sam.modeling import ALL
from mobile_sam.predictor import Embedding, Predictor, scaled_size
from mobile_sam.prompts import Prompt
from mobile_sam.segments import Segments, tight_box
from mobile_sam.tracking.appearance import (
    Colours,
    Template,
    histogram,
    similarity,
    tell_apart,
)
from mobile_sam.tracking.claim import (
    SURE_SIMILARITY,
    Claim,
    is_good,
    is_same,
    prompts_of,
    raster_of,
    settled,
)
from mobile_sam.tracking.evidence import (
    LEAST_AREA,
    Evidence,
    View,
    agreement_of,
    lacks_a_part,
    predict,
    remembered,
    search,
)
from mobile_sam.tracking.memory import Memory, cell_features
from mobile_sam.tracking.motion import still
from mobile_sam.tracking.others import other_thing, places
from mobile_sam.tracking.track import Track, TrackedObject, TrackState

_WORKING_SIDE = 640  # pixels: larger images are scaled down for all but the masks
_LEAST_SHARE = 0.15  # of the template that has to be seen
_WHOLE_SHARE = 0.85  # from which on all of it is seen
_SURE_AGREEMENT = 0.6
_IOU_WEIGHT = 0.3  # of the model's own estimate, in the choice between masks
_RATE = 0.1
_OTHER = "other"  # before the numbers of other things in a state
_LOOK_EVERY = 10  # images, for other things, or as many as there are objects
_OTHERS = 4  # that are followed, at most
_WHOLE_AREA = 0.8  # of its usual area, from which on no part of an object is missing
_TOUCHING = np.ones((9, 9), np.uint8)  # less than 5 pixels from each other


class Tracker:
    """Objects that are followed. The images come in the order of their time.

    image_size: height and width of the images; None before the first one.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._tracks: dict[str, Track] = {}
        self._others: list[Track] = []  # by the name of the object that each could be mistaken for
        self.image_size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self._tracks)

    def __contains__(self, id: str) -> bool:
        return id in self._tracks

    @property
    def boxes(self) -> dict[str, NDArray[np.float32]]:
        """Boxes of the objects that were seen in the last image, x, y, x, y, in its pixels."""
        if self.image_size is None:
            return {}
        scale = max(self.image_size) / max(_working_size(self.image_size))
        return {
            track.id: tight_box(track.mask) * np.float32(scale)
            for track in self._tracks.values()
            if track.mask is not None
        }

    def forget(self, ids: list[str] | None = None) -> None:
        """Follows these objects no more; None: all of them."""
        for id in list(self._tracks) if ids is None else ids:
            self._tracks.pop(id, None)
        self._others = [track for track in self._others if track.id in self._tracks]

    def start(
        self,
        image: NDArray[np.uint8],
        embedding: Embedding,
        prompts: Mapping[str, Prompt],
        seconds: float,
    ) -> list[str]:
        """Begins to follow objects, or shows anew where those are that are followed already.

        Args:
            image: uint8 (H, W, 3), RGB.
            embedding: of it.
            prompts: one object each, by its id.
            seconds: when the image was taken; only differences count.

        Returns:
            The ids of prompts that show nothing, which are not followed.

        Raises:
            ValueError: a mask prompt of another size.
        """
        if not prompts:
            return []
        self._check_size(image)
        segments = self._predictor.decode(embedding, list(prompts.values()))
        logits, iou = (torch.from_numpy(a) for a in (segments.logits, segments.predicted_iou))
        view = View.of(_working(image))
        small = dataclasses.replace(embedding, image_size=view.size)
        masks = self._predictor.segments(logits, iou, small).masks
        features = cell_features(small)
        empty = []
        for number, (id, mask) in enumerate(zip(prompts, masks, strict=True)):
            if np.count_nonzero(mask) < LEAST_AREA:
                empty.append(id)
                continue
            before = self._tracks.get(id)
            track = _begin(id, view, mask, logits[number], float(iou[number]), seconds)
            track.memory = Memory.of(features, mask)
            if before is not None:
                track.motion, track.interval, track.age = before.motion, before.interval, before.age
            self._tracks[id] = track
        objects = list(self._tracks.values())  # what was another thing may be one of them now
        self._others = [t for t in self._others if not _is_any_of(t.mask, objects)]
        begun = [self._tracks[id] for id in prompts if id not in empty]
        self._find_others(begun[:_OTHERS], view, small, seconds)
        self._tell_apart()
        return empty

    def step(self, image: NDArray[np.uint8], embedding: Embedding, seconds: float) -> None:
        """Finds the objects in the next image.

        Args:
            image: uint8 (H, W, 3), RGB. In one of another size than before, nothing is found again.
            embedding: of it.
            seconds: when it was taken.
        """
        self._check_size(image)
        view = View.of(_working(image))
        small = dataclasses.replace(embedding, image_size=view.size)
        features = cell_features(small)
        beliefs = self._beliefs(features)
        evidence: dict[Track, Evidence] = {}
        for track in self._all():
            found = self._evidence(track, beliefs.get(track), view, seconds)
            if found is not None:
                evidence[track] = found
        claims = settled(self._claims(view, small, evidence), view)
        taken = _covered(claim.mask for claim in claims.values()) > 0
        evidence = {}
        for track, belief in beliefs.items():
            found = None if track in claims else remembered(belief, track.area, taken, view)
            if found is not None:
                evidence[track] = found
        if evidence:
            claims = settled(claims | self._claims(view, small, evidence), view)
        covered = _covered(claim.mask for claim in claims.values())
        for track in self._all():
            track.age += 1
            claim = claims.get(track)
            if claim is None:
                track.mask, track.confidence = None, 0.0
                track.unseen += 1
            else:
                near = cv2.dilate(claim.mask.astype(np.uint8), _TOUCHING) > 0
                track.is_touched = bool((near & (covered > claim.mask)).any())
                self._learn(track, claim, beliefs.get(track), view, seconds)
                if track.memory is not None and track in beliefs:
                    track.memory.learn(features, claim.mask, beliefs[track])
        self._others = [t for t in self._others if t.state is not TrackState.LOST]
        period = max(_LOOK_EVERY, len(self._tracks))  # not for many objects in one image
        turn = [t for i, t in enumerate(self._tracks.values()) if (t.age + i) % period == 0]
        self._find_others(turn, view, small, seconds)
        self._tell_apart()

    @torch.inference_mode()
    def segments(self, embedding: Embedding) -> Segments:
        """Returns the objects in the order in which they were started, with an empty mask where
        one is not seen.

        Args:
            embedding: of the image of the last `step` or `start`.
        """
        if not self._tracks:
            return self._predictor.nothing(embedding.image_size)
        tracks = self._tracks.values()
        rows = [t.logits if t.mask is not None else torch.full_like(t.logits, -1) for t in tracks]
        estimates = [t.predicted_iou if t.mask is not None else 0.0 for t in tracks]
        return self._predictor.segments(torch.stack(rows), torch.tensor(estimates), embedding)

    def objects(self) -> list[TrackedObject]:
        """Returns where the objects stand after the last image, in the same order."""
        return [
            TrackedObject(track.id, track.state, track.age, track.unseen, track.confidence)
            for track in list(self._tracks.values())  # at once: another thread may start some
        ]

    def state(self) -> dict[str, NDArray[Any]]:
        """Returns all that it knows as arrays by names, from which another tracker of the same
        model can go on (`restore`)."""
        size = {} if self.image_size is None else {"image_size": np.array(self.image_size)}
        return size | {
            f"{kind}{number:06}/{name}": array
            for kind, tracks in (("", self._tracks.values()), (_OTHER, self._others))
            for number, track in enumerate(tracks)
            for name, array in track.arrays().items()
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Takes over a `state`, and forgets what it knew."""
        size = state.get("image_size")
        self.image_size = None if size is None else (int(size[0]), int(size[1]))
        parts = sorted(name.split("/") for name in state if "/" in name)
        self._tracks, self._others = {}, []
        for number, names in groupby(parts, lambda part: part[0]):
            track = Track.from_arrays({name: state[f"{number}/{name}"] for _, name in names})
            if number.startswith(_OTHER):
                self._others.append(track)
            else:
                self._tracks[track.id] = track

    def _check_size(self, image: NDArray[np.uint8]) -> None:
        """Forgets what was seen in images of another size."""
        if self.image_size != image.shape[:2]:
            self.forget()
            self.image_size = image.shape[:2]

    def _tell_apart(self) -> None:
        tell_apart([track.colours for track in self._all()])

    def _all(self) -> list[Track]:
        return [*self._tracks.values(), *self._others]

    def _find_others(
        self, objects: Iterable[Track], view: View, embedding: Embedding, seconds: float
    ) -> None:
        """Begins to follow things beside these objects, and what they could be taken for."""
        if len(self._others) >= _OTHERS or any(track.mask is None for track in self._all()):
            return  # what is found could be the one that is not seen
        masks = {track: track.mask for track in self._all() if track.mask is not None}
        covered = _covered(masks.values())
        asked: list[tuple[Track, Prompt]] = []
        for track in objects:
            if np.count_nonzero(masks[track]) < _WHOLE_AREA * track.area:
                continue  # what is found could be the rest of it
            taken = covered > masks[track]
            asked += ((track, prompt) for prompt in places(track, masks[track], taken, view))
        if not asked:
            return
        found = self._predictor.decode(embedding, [prompt for _, prompt in asked])
        followed = covered > 0
        for number, ((track, prompt), mask) in enumerate(zip(asked, found.masks, strict=True)):
            estimate = float(found.predicted_iou[number])
            thing = other_thing(prompt, mask, estimate, followed, track, view)
            if thing is not None and not _is_any_of(thing, self._all()):
                followed |= thing
                row = torch.from_numpy(found.logits[number])
                self._others.append(_begin(track.id, view, thing, row, estimate, seconds))
                if len(self._others) == _OTHERS:
                    return

    def _evidence(
        self, track: Track, belief: NDArray[np.float32] | None, view: View, seconds: float
    ) -> Evidence | None:
        if track.state is not TrackState.LOST:
            motion, looks = track.expected(seconds), (track.colours, track.area, track.noise)
            found = predict(track.template, *looks, motion, view, belief, track.is_touched)
            if found is not None and found.share >= _LEAST_SHARE:
                return found
            if track.state is TrackState.ACTIVE:
                return None
        taken = [t.mask for t in self._all() if t is not track and t.mask is not None]
        return search(track.colours, track.area, taken, view)

    def _beliefs(self, features: Tensor) -> dict[Track, NDArray[np.float32]]:
        """Returns what SAM's features say of the objects; of lost ones only now and then."""
        return {
            track: track.memory.belief(features, track.unseen)
            for track in self._tracks.values()
            if track.memory is not None
            and (track.state is not TrackState.LOST or track.unseen % _LOOK_EVERY == 0)
        }

    def _claims(
        self, view: View, embedding: Embedding, evidence: Mapping[Track, Evidence]
    ) -> dict[Track, Claim]:
        """Asks SAM, chooses a mask for each object and leaves out those not good enough."""
        if not evidence:
            return {}
        objects = set(self._tracks.values())
        asked = [prompts_of(found, track in objects) for track, found in evidence.items()]
        prompts = [prompt for of_one in asked for prompt in of_one]
        all_logits, all_iou = self._predictor.logits(embedding, prompts, ALL)
        each = all_iou.shape[1]
        logits, iou = all_logits.flatten(0, 1), all_iou.flatten()
        filled = (logits > 0).cpu().numpy()
        estimates = iou.float().clamp(0, 1).cpu().numpy()
        choices, agreements, first = [], [], 0
        for of_one, found in zip(asked, evidence.values(), strict=True):
            part = slice(first, first + len(of_one) * each)
            of_each = agreement_of(filled[part], raster_of(found, view.size, filled.shape[-1]))
            best = int((of_each + _IOU_WEIGHT * estimates[part]).argmax())
            choices.append(first + best)
            agreements.append(float(of_each[best]))
            first = part.stop
        masks = self._predictor.segments(logits[choices], iou[choices], embedding).masks
        claims = {}
        for (track, found), choice, agreement, mask in zip(
            evidence.items(), choices, agreements, masks, strict=True
        ):
            if np.count_nonzero(mask) < LEAST_AREA:
                continue
            alike = similarity(histogram(view.codes[mask]), track.colours.own)
            row, estimate = logits[choice].cpu(), float(iou[choice])
            claim = Claim(found, mask, agreement, alike, row, estimate)
            if is_good(claim, track, view):
                claims[track] = claim
        return claims

    def _learn(
        self,
        track: Track,
        claim: Claim,
        belief: NDArray[np.float32] | None,
        view: View,
        seconds: float,
    ) -> None:
        """Takes over what an object looks like now, and how it moves."""
        evidence, mask = claim.evidence, claim.mask
        is_whole = (evidence.share >= _WHOLE_SHARE and claim.agreement >= _SURE_AGREEMENT) or (
            claim.size > _WHOLE_SHARE and claim.similarity > SURE_SIMILARITY
        )
        if evidence.motion is None:
            track.template, track.motion = Template.cut(view.image, mask), still()
            if evidence.is_remembered:  # it may look otherwise from now on
                track.colours.learn(view.codes, mask)
        elif is_whole:
            track.template = Template.cut(view.image, mask)
            track.noise += _RATE * (evidence.difference - track.noise)
            if claim.is_sure:
                change = np.count_nonzero(mask) - track.area
                # What touches it may hide a part of it.
                if change > 0 or not (
                    track.is_touched or lacks_a_part(mask, track.colours, belief, view)
                ):
                    track.area += _RATE * change
                track.colours.learn(view.codes, mask)
        else:
            track.template = evidence.template.renewed(view.image, evidence.seen)
        if evidence.motion is not None and not track.unseen:
            track.motion, track.interval = evidence.motion, seconds - track.seconds
        track.mask, track.seconds, track.unseen = mask, seconds, 0
        track.logits, track.predicted_iou = claim.logits, claim.predicted_iou
        track.confidence = claim.confidence


def _begin(
    id: str,
    view: View,
    mask: NDArray[np.bool_],
    logits: Tensor,
    predicted_iou: float,
    seconds: float,
) -> Track:
    """Returns a track of what is in a mask."""
    template, colours = Template.cut(view.image, mask), Colours(view.codes, mask)
    area = float(np.count_nonzero(mask))
    return Track(id, template, colours, area, mask, logits, predicted_iou, seconds, motion=still())


def _is_any_of(mask: NDArray[np.bool_] | None, tracks: Iterable[Track]) -> bool:
    """Returns whether what is in a mask is followed already."""
    return mask is not None and any(
        is_same(mask, track.mask) for track in tracks if track.mask is not None
    )


def _covered(masks: Iterable[NDArray[np.bool_]]) -> NDArray[np.int64]:
    """Returns how many masks each pixel is in: it is in another than its own if that is more."""
    return np.sum(list(masks), axis=0, dtype=np.int64)


def _working_size(image_hw: tuple[int, int]) -> tuple[int, int]:
    return scaled_size(image_hw, min(_WORKING_SIDE, max(image_hw)))


def _working(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns an image at the size at which objects are followed."""
    height, width = _working_size(image.shape[:2])
    if (height, width) == image.shape[:2]:
        return image
    smaller = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return smaller.astype(np.uint8, copy=False)
