"""The first pass over a bag: every image through the model, its segments into the journal."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

import mobile_sam
from mobile_sam.everything import EverythingSettings, segment_everything
from mobile_sam.segments import concatenate
from mobile_sam_ros.bags.journal import Journal, Result, State
from mobile_sam_ros.bags.matching import Companions, Moment
from mobile_sam_ros.bags.plain_messages import PlainClasses
from mobile_sam_ros.bags.source import SourceBag
from mobile_sam_ros.conversions import BadMessage, nanoseconds, rgb_from_message
from mobile_sam_ros.detections import reader
from mobile_sam_ros.following import Following
from mobile_sam_ros.frames import Frame
from mobile_sam_ros.identity import Identity, Shown
from mobile_sam_ros.results import segments_message
from mobile_sam_ros.selection import Selection, detected, strongest

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_CHECKPOINT_SECONDS = 5.0
_REACH = 10_000_000_000  # nanoseconds that a detector may be late


class Interrupted(Exception):
    """The user wants an end; all that is done is kept."""


@dataclass(frozen=True, eq=False)
class TimedPrompt:
    """An object to follow.

    seconds: since the bag's first message, when it is shown: in the first image from then on.
    """

    prompt: mobile_sam.Prompt
    identity: Identity
    seconds: float = 0.0


@dataclass(frozen=True)
class Request:
    """What to segment in which images.

    image: topic, raw or compressed.
    detections: topic of boxes; empty: none.
    detections_fields: the layout of its messages, see `mobile_sam_ros.detections`.
    match_slop: nanoseconds that a detection's stamp may differ from its image's.
    selection: which detections count.
    prompts: objects to follow.
    track_detections: detections start objects that are followed, too.
    track_overlap: IoU from which on a detection is of an object that is followed.
    forget_after: seconds after which an object that is lost is forgotten; 0: never.
    everything: instead of all these.
    max_objects: in an image.
    start, stop: log times, nanoseconds; the last one is not reached.
    """

    image: str
    detections: str = ""
    detections_fields: str = ""
    match_slop: int = 0
    selection: Selection = field(default_factory=Selection)
    prompts: Sequence[TimedPrompt] = ()
    track_detections: bool = False
    track_overlap: float = 0.5
    forget_after: float = 0.0
    everything: EverythingSettings | None = None
    max_objects: int = 64
    start: int | None = None
    stop: int | None = None

    @property
    def follows(self) -> bool:
        """Whether an image's result depends on those before."""
        return bool(self.prompts) or self.track_detections


class Segmenter:
    """Segments one image after the other."""

    def __init__(
        self,
        predictor: mobile_sam.Predictor,
        request: Request,
        begin: int,
        complain: Callable[[str], None],
    ) -> None:
        """Has seen nothing yet.

        Args:
            predictor: the model.
            request: what to segment.
            begin: log time from which the prompts' seconds count.
            complain: called with what cannot be used of an image.
        """
        self._predictor, self._request, self._begin = predictor, request, begin
        self._complain = complain
        self._following = Following(predictor, complain)
        self._prepared: set[tuple[int, int]] = set()

    def segment(
        self, moment: Moment, before: int, detections: Sequence[Any]
    ) -> tuple[mobile_sam.Segments, list[Identity]]:
        """Segments an image.

        Args:
            moment: the image.
            before: log time of the image before it, or 0.
            detections: vision_msgs/msg/Detection2D, of this image.

        Raises:
            BadMessage: it cannot be read.
        """
        image = rgb_from_message(moment.message)
        self._prepare(image.shape[:2])
        if self._request.everything is not None:
            found = segment_everything(self._predictor, image, self._request.everything)
            most = np.arange(min(len(found), self._request.max_objects))
            names = [Identity(f"everything_{i + 1}") for i in most]
            return found.segments.take(most), names
        return self._asked(moment, image, before, detections)

    def _prepare(self, image_hw: tuple[int, int]) -> None:
        """Has the model ready before the first image of a size: what it is like while it is made
        ready would depend on the time that takes."""
        if image_hw not in self._prepared:
            self._prepared.add(image_hw)
            self._predictor.prepare(image_hw)

    def _asked(
        self, moment: Moment, image: NDArray[np.uint8], before: int, detections: Sequence[Any]
    ) -> tuple[mobile_sam.Segments, list[Identity]]:
        request, following = self._request, self._following
        shown = [
            (prompt.prompt, prompt.identity)
            for prompt in request.prompts
            if before < max(self._begin + int(prompt.seconds * 1e9), request.start or 0)
            and self._begin + int(prompt.seconds * 1e9) <= moment.log
        ]
        unnamed = "" if request.track_detections else "detection_{}"
        found = detected(
            detections, image.shape[:2], request.selection, self._complain, unnamed
        )
        if not (shown or found or following.is_active):
            return self._predictor.nothing(image.shape[:2]), []
        embedding = self._predictor.encode(image)
        frame = Frame(moment.message, moment.log / 1e9)
        if following.is_active:
            following.step(frame, image, embedding, request.forget_after)
        if request.track_detections:
            shown = shown + following.recognise(frame, found, request.track_overlap)
            found = []
        if shown:
            following.start(frame, image, embedding, shown, request.max_objects)
        found = strongest(found, request.max_objects, self._complain)
        segments = self._predictor.decode(embedding, [prompt for prompt, _ in found])
        identities = [identity for _, identity in found]
        if following.is_active:
            followed, names = following.segments(embedding)
            segments, identities = concatenate([followed, segments]), names + identities
        return segments, identities

    def state(self) -> State:
        """Returns what it needs to go on after an image."""
        return self._following.state()

    def restore(self, state: State) -> None:
        """Goes on from a `state`."""
        self._following.restore(state)
