"""The objects that are followed: which detections are which of them, and what they are called."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import mobile_sam
from mobile_sam.tracking import Tracker, TrackState
from mobile_sam_ros.frames import Frame
from mobile_sam_ros.identity import Identity, Shown

_REMEMBERED = 100  # images for whose detections, if they come late, it is known what was where
_MOST_CHANGES = 1000  # that wait for an image
_GOOD_OVERLAP = 0.7  # a track that overlaps its detection by so much is left as it is


class Following:
    """Keeps a tracker, all on the worker's thread but for `is_active`, `forget`, `remove` and
    `rename`."""

    def __init__(self, predictor: mobile_sam.Predictor, complain: Callable[[str], None]) -> None:
        self._tracker = Tracker(predictor)
        self._complain = complain
        self._identities: dict[str, Identity] = {}
        self._boxes: deque[tuple[int, dict[str, NDArray[np.float32]]]] = deque(maxlen=_REMEMBERED)
        self._lost_at: dict[str, float] = {}
        self._newest: Frame | None = None
        self._elsewhere: set[str] = set()  # begun in another image: nobody knows where in this one
        self._number = 0  # of the last object that was given a name
        self._is_to_forget = False
        self._changes: deque[tuple[str, str | None]] = deque(maxlen=_MOST_CHANGES)

    @property
    def is_active(self) -> bool:
        """Whether there is an object to follow."""
        return bool(self._identities) and not self._is_to_forget

    def forget(self) -> int:
        """Follows nothing any more, from the next image on; returns how many objects it were."""
        self._is_to_forget = True
        return len(self._identities)

    def remove(self, id: str) -> bool:
        """Stops following an object, from the next image on; returns whether it is followed."""
        self._changes.append((id, None))
        return id in self._identities

    def rename(self, id: str, class_id: str) -> bool:
        """Gives an object another class, from the next image on; returns whether it is followed."""
        self._changes.append((id, class_id))
        return id in self._identities

    def is_behind(self, frame: Frame) -> bool:
        """Whether an image came before the last one in which the objects were followed."""
        return self._newest is not None and frame.received < self._newest.received

    def was_in(self, frame: Frame) -> bool:
        """Whether the objects were followed to an image, or beyond it."""
        return self._newest is not None and frame.received <= self._newest.received

    def begin(self) -> None:
        """Has to be called before the others, for each job."""
        if self._is_to_forget:
            self._tracker.forget()
            self._identities.clear()
            self._lost_at.clear()
            self._is_to_forget = False
        while self._changes:
            id, class_id = self._changes.popleft()
            if id not in self._identities:
                continue
            if class_id is not None:
                self._identities[id] = replace(self._identities[id], class_id=class_id)
                continue
            self._tracker.forget([id])
            self._lost_at.pop(id, None)
            del self._identities[id]

    def step(
        self,
        frame: Frame,
        image: NDArray[np.uint8],
        embedding: mobile_sam.Embedding,
        forget_after: float,
    ) -> None:
        """Follows the objects to an image, unless that was done.

        Args:
            frame: not behind.
            image: its pixels, uint8 (H, W, 3) RGB.
            embedding: of it.
            forget_after: seconds after which an object that is lost is forgotten; 0: never.
        """
        if frame is not self._newest:
            self._tracker.step(image, embedding, _seconds(frame))
            self._newest = frame
            self._elsewhere.clear()
            self._keep_followed()
            self._forget_lost(frame.received, forget_after)
        boxes = self._tracker.boxes.items()
        self._boxes.append((frame.stamp, {i: box for i, box in boxes if i not in self._elsewhere}))

    def _keep_followed(self) -> None:
        """Forgets the names of those that the tracker has given up."""
        if len(self._identities) > len(self._tracker):
            self._complain("images have another size than before: nothing is followed any more")
            self._identities = {id: i for id, i in self._identities.items() if id in self._tracker}

    def _forget_lost(self, now: float, forget_after: float) -> None:
        lost = [item.id for item in self._tracker.objects() if item.state is TrackState.LOST]
        self._lost_at = {id: self._lost_at.get(id, now) for id in lost}
        if not forget_after:
            return
        gone = [id for id, since in self._lost_at.items() if now - since > forget_after]
        self._tracker.forget(gone)
        for id in gone:
            del self._identities[id], self._lost_at[id]

    def recognise(self, frame: Frame, shown: Sequence[Shown], least_overlap: float) -> list[Shown]:
        """Finds out which detections are of objects that are followed.

        That is so if the id is the same, or if the boxes overlapped in that image. What is known
        already only gets the detection's class and score.

        Args:
            frame: of the detections, may be behind.
            shown: boxes and what the detector calls them.
            least_overlap: IoU from which on a detection is of an object.

        Returns:
            What has to be started, or shown anew: with the ids that it is followed by.
        """
        boxes = self._boxes_in(frame)
        states = {item.id: item.state for item in self._tracker.objects()}
        free = set(states)
        result = []
        for prompt, identity in sorted(shown, key=lambda item: -item[1].score):
            assert prompt.box is not None
            overlaps = {id: _overlap(prompt.box, boxes[id]) for id in free if id in boxes}
            best = max(overlaps, key=lambda id: overlaps[id], default="")
            if identity.id in free:
                id = identity.id
            elif overlaps.get(best, 0.0) >= least_overlap:
                id = best
            else:
                id = identity.id if identity.id and identity.id not in states else self._name()
            free.discard(id)
            known = Identity(id, identity.class_id, identity.score)
            if id not in states:
                result.append((prompt, known))
                continue
            self._identities[id] = known
            is_off = states[id] is not TrackState.ACTIVE or overlaps.get(id, 1.0) < _GOOD_OVERLAP
            if is_off and not self.is_behind(frame):
                result.append((prompt, known))
        return result

    def _name(self) -> str:
        while True:
            self._number += 1
            if f"track_{self._number}" not in self._identities:
                return f"track_{self._number}"

    def _boxes_in(self, frame: Frame) -> dict[str, NDArray[np.float32]]:
        """Returns the boxes in an image, or in that nearest to it; of equal stamps, as of a bag
        that begins again, in the image that came last."""
        newest_first = reversed(self._boxes)
        nearest = min(newest_first, key=lambda item: abs(item[0] - frame.stamp), default=(0, {}))
        return nearest[1]

    def start(
        self,
        frame: Frame,
        image: NDArray[np.uint8],
        embedding: mobile_sam.Embedding,
        shown: Sequence[Shown],
        max_objects: int,
        is_aside: bool = False,
    ) -> None:
        """Begins to follow objects from an image on, or shows them anew; says what shows nothing,
        and what is left out because there are `max_objects` already.

        Args:
            frame: may be behind; else one to which `step` has followed what there is.
            image: its pixels, uint8 (H, W, 3) RGB.
            embedding: of it.
            shown: the objects, and what they are called.
            max_objects: that may be followed.
            is_aside: the image is none of the camera's: somebody brought it. As of one that is
                behind, the objects are in no result before the next image.

        Raises:
            ValueError: a mask prompt of another size.
        """
        is_aside = is_aside or self.is_behind(frame)
        if is_aside and len(self._tracker) and self._tracker.image_size != image.shape[:2]:
            self._complain("an image has not the size of those in which objects are followed")
            return
        room = max_objects - len(self._tracker)
        new = [identity.id for _, identity in shown if identity.id not in self._tracker]
        if len(new) > room:
            self._complain(
                f"parameter max_objects is {max_objects}: not followed are {', '.join(new[room:])}"
            )
            shown = [item for item in shown if item[1].id not in new[max(room, 0) :]]
        prompts = {identity.id: prompt for prompt, identity in shown}
        try:
            empty = self._tracker.start(image, embedding, prompts, _seconds(frame))
        except Exception:  # out of memory and the like: it may know some of them by now
            self._tracker.forget([id for id in prompts if id not in self._identities])
            raise
        self._keep_followed()
        for _, identity in shown:
            if identity.id in empty:
                self._complain(f"prompt {identity.id!r} shows nothing that could be followed")
            else:
                self._identities[identity.id] = identity
        begun = prompts.keys() - set(empty)
        if is_aside:
            self._elsewhere |= begun
        else:
            self._newest = frame
            self._elsewhere -= begun

    def segments(
        self, embedding: mobile_sam.Embedding
    ) -> tuple[mobile_sam.Segments, list[Identity]]:
        """Returns the objects in the image of the last `step` or `start`."""
        objects = self._tracker.objects()
        here = [n for n, item in enumerate(objects) if item.id not in self._elsewhere]
        identities = [
            Identity(known.id, known.class_id, known.score, item)
            for item in (objects[n] for n in here)
            for known in [self._identities[item.id]]
        ]
        return self._tracker.segments(embedding).take(np.array(here, np.int64)), identities

    def state(self) -> dict[str, NDArray[Any]]:
        """Returns all that it needs to go on from an image, as arrays by names (`restore`)."""
        names = {
            "identities": [asdict(identity) for identity in self._identities.values()],
            "lost_at": self._lost_at,
            "number": self._number,
        }
        return self._tracker.state() | {"names": np.array(json.dumps(names))}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Takes over a `state`."""
        self._tracker.restore({name: array for name, array in state.items() if name != "names"})
        names = json.loads(state["names"].item())
        self._identities = {known["id"]: Identity(**known) for known in names["identities"]}
        self._lost_at, self._number = names["lost_at"], names["number"]

    def counts(self) -> dict[str, int]:
        """Returns how many objects are in which state."""
        states = [item.state for item in self._tracker.objects()]
        return {state.value: states.count(state) for state in TrackState}


def _seconds(frame: Frame) -> float:
    """Returns when an image was taken; when it came, if its camera does not say."""
    return frame.stamp / 1e9 if frame.stamp else frame.received


def _overlap(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Returns the IoU of two boxes x, y, x, y."""
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    both = float(np.prod(np.maximum(high - low, 0)))
    areas = (float(np.prod(box[2:] - box[:2])) for box in (one, other))
    return both / max(sum(areas) - both, 1e-6)
