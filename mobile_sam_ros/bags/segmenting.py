"""The first pass over a bag: every image through the model, its segments into the journal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

import mobile_sam
from mobile_sam.everything import EverythingSettings, segment_everything
from mobile_sam.segments import concatenate
from mobile_sam_ros.bags.journal import Journal, Result, State
from mobile_sam_ros.bags.matching import Companions, Moment
from mobile_sam_ros.bags.plain_messages import PlainClasses, result_classes
from mobile_sam_ros.bags.source import FALL, BagError, SourceBag
from mobile_sam_ros.candidates import Selection, best, of_detections, why_left_out
from mobile_sam_ros.conversions import BadMessage, nanoseconds, rgb_from_message
from mobile_sam_ros.detections import STANDARD, of_another_camera, reader
from mobile_sam_ros.following import Following
from mobile_sam_ros.frames import Frame
from mobile_sam_ros.identity import Identity, Shown
from mobile_sam_ros.results import segments_message

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_CHECKPOINT_SECONDS = 5.0
_REACH = 10_000_000_000  # nanoseconds that a detector may be late


class Interrupted(Exception):
    """The user wants an end; all that is done is kept."""


class PromptError(Exception):
    """A prompt that cannot be used; the message names it and the value."""


@dataclass(frozen=True, eq=False)
class TimedPrompt:
    """An object to follow.

    log: it is shown in the first image from this log time on, nanoseconds.
    """

    prompt: mobile_sam.Prompt
    identity: Identity
    log: int = 0

    def check(self, image_hw: tuple[int, int]) -> None:
        """Checks that it is about an image of this height and width.

        Raises:
            PromptError: a point lies outside of it, or all of the box.
        """
        size = np.array(image_hw[::-1])
        outside = ""
        for point in () if self.prompt.points is None else self.prompt.points:
            if not ((point >= 0) & (point < size)).all():
                outside = f"point {point.tolist()}"
        if self.prompt.box is not None:
            box = self.prompt.box
            if (np.minimum(box[2:], size) <= np.maximum(box[:2], 0)).any():
                outside = f"box {box.tolist()}"
        if outside:
            raise PromptError(
                f"prompt {self.identity.id!r}: {outside} lies outside of the image of "
                f"{image_hw[1]}x{image_hw[0]}"
            )


@dataclass(frozen=True)
class Request:
    """What to segment in which images.

    image: topic, raw or compressed.
    detections: topic of boxes; empty: none.
    detections_fields: the layout of its messages, see `mobile_sam_ros.detections`.
    match_slop: nanoseconds that a detection's stamp may differ from its image's.
    match_frame_id: detections with another frame_id than their image are refused.
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
    match_frame_id: bool = True
    selection: Selection = field(default_factory=Selection)
    prompts: Sequence[TimedPrompt] = ()
    track_detections: bool = False
    track_overlap: float = 0.5
    forget_after: float = 0.0
    everything: EverythingSettings | None = None
    max_objects: int = 64
    start: int | None = None
    stop: int | None = None

    def includes(self, log: int) -> bool:
        """Returns whether the image of a log time is segmented."""
        return (self.start or 0) <= log and (self.stop is None or log < self.stop)

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
        complain: Callable[[str], None],
    ) -> None:
        """Has seen nothing yet.

        Args:
            predictor: the model.
            request: what to segment.
            complain: called with what cannot be used of an image.
        """
        self._predictor, self._request, self._complain = predictor, request, complain
        self._following = Following(predictor, complain)
        self._prepared: set[tuple[int, int]] = set()
        self._last = -1  # the latest log time of an image

    def segment(
        self, moment: Moment, detections: Sequence[Any]
    ) -> tuple[mobile_sam.Segments, list[Identity]]:
        """Segments an image.

        Args:
            moment: the image.
            detections: vision_msgs/msg/Detection2D, of this image.

        Raises:
            BadMessage: it cannot be read.
            PromptError: a prompt that is shown in it lies outside of it.
        """
        image = rgb_from_message(moment.message)
        if not image.flags.writeable:  # a view of the bag's bytes, which torch warns of
            image = image.copy()
        self._prepare(image.shape[:2])
        if self._request.everything is None:
            return self._asked(moment, image, detections)
        found = segment_everything(self._predictor, image, self._request.everything)
        most = np.arange(min(len(found), self._request.max_objects))
        return found.segments.take(most), [Identity(f"everything_{i + 1}") for i in most]

    def _prepare(self, image_hw: tuple[int, int]) -> None:
        """Has the model ready before the first image of a size: until it is, others would compute
        for it, and how many images those get depends on the time."""
        if image_hw not in self._prepared:
            self._prepared.add(image_hw)
            self._predictor.prepare(image_hw)

    def _asked(
        self, moment: Moment, image: NDArray[np.uint8], detections: Sequence[Any]
    ) -> tuple[mobile_sam.Segments, list[Identity]]:
        request, following, image_hw = self._request, self._following, image.shape[:2]
        shown = self._due(moment.log, image_hw)
        unnamed = "" if request.track_detections else "detection_{}"
        topic = str(request.detections)
        candidates = list(of_detections(detections, image_hw, request.selection, topic, unnamed))
        found, left_out = best(candidates, request.max_objects, self._complain)
        if left_out:
            self._complain(why_left_out(len(candidates), request.max_objects, left_out))
        if not (shown or found or following.is_active):
            return self._predictor.nothing(image_hw), []
        embedding = self._predictor.encode(image)
        frame = Frame(moment.message, moment.log / 1e9)
        if following.is_active:
            following.step(frame, image, embedding, request.forget_after)
        if request.track_detections:
            shown += following.recognise(frame, found, request.track_overlap)
            found = []
        if shown:
            following.start(frame, image, embedding, shown, request.max_objects)
        segments = self._predictor.decode(embedding, [prompt for prompt, _ in found])
        identities = [identity for _, identity in found]
        if following.is_active:
            followed, names = following.segments(embedding)
            segments, identities = concatenate([followed, segments]), names + identities
        return segments, identities

    def _due(self, log: int, image_hw: tuple[int, int]) -> list[Shown]:
        """Returns the prompts that are shown in the image of a log time, the next one."""
        due = [prompt for prompt in self._request.prompts if self._last < prompt.log <= log]
        self._last = max(self._last, log)  # else a prompt is shown again where they fall
        for prompt in due:
            prompt.check(image_hw)
        return [(prompt.prompt, prompt.identity) for prompt in due]

    def left(self) -> list[TimedPrompt]:
        """Returns the prompts whose time has not come."""
        return [prompt for prompt in self._request.prompts if prompt.log > self._last]

    def state(self) -> State:
        """Returns what it needs to go on after an image."""
        return self._following.state() | {"last": np.array(self._last)}

    def restore(self, state: State) -> None:
        """Goes on from a `state`."""
        self._last = int(state.pop("last"))
        self._following.restore(state)


def segment_images(
    source: SourceBag,
    request: Request,
    predictor: mobile_sam.Predictor,
    journal: Journal,
    complain: Callable[[str], None],
    progress: Callable[[int], None],
    is_to_end: Callable[[], bool],
) -> None:
    """Segments the images of a bag, from where the journal ends.

    Args:
        source: the bag, open.
        request: what to segment.
        predictor: the model.
        journal: gets the results.
        complain: called with what is wrong with a message; the rest goes on.
        progress: called with the number of images that are done.
        is_to_end: asked after each image.

    Raises:
        Interrupted: it was to end. Nothing that is done has to be done again.
        BagError: the bag is damaged.
        PromptError: a prompt lies outside of its image.
    """
    problems: list[str] = []

    def wrong(text: str) -> None:
        problems.append(text)
        complain(text)

    segmenter = Segmenter(predictor, request, wrong)
    if request.follows:
        state = journal.back_to_checkpoint()
        if state is not None:
            segmenter.restore(state)
    classes = result_classes()
    images = _images(source, request, journal)
    image = next(images, None)
    companions = _companions(source, request, journal, image, wrong)
    saved_at = monotonic()
    progress(len(journal))
    while image is not None:
        following = next(images, None)
        near = companions.of(image, following)
        data = None
        try:
            if isinstance(image.message, BadMessage):
                raise image.message
            detections = [
                item
                for moment in near
                if _is_of_this_camera(moment.message, image.message, request, wrong)
                for item in moment.message.detections
            ]
            found, identities = segmenter.segment(image, detections)
            header = image.message.header
            message = segments_message(header, found.image_size, found, identities, classes)
            data = classes.to_bytes(message)
        except BadMessage as error:
            wrong(f"{request.image}: {error}")
        journal.add(len(journal), Result(image.log, image.stamp, data), problems)
        problems.clear()
        progress(len(journal))
        ends = is_to_end()
        if request.follows and (ends or monotonic() - saved_at > _CHECKPOINT_SECONDS):
            journal.checkpoint(segmenter.state())
            saved_at = monotonic()
        if ends:
            raise Interrupted
        image = following
    companions.close()
    for prompt in segmenter.left():
        wrong(f"prompt {prompt.identity.id!r} is not used: there is no image at its time")
    journal.complete(problems)


def _images(source: SourceBag, request: Request, journal: Journal) -> Iterator[Moment]:
    """Yields the images that are not done; `message` is the error of those that cannot be read."""
    decode = source.decoder(request.image)
    since = _since(request, journal)
    done = len(journal.moments(since or 0))
    messages = source.messages([request.image], since, request.stop)
    for _, log, data in islice(messages, done, None):
        try:
            message = decode(data)
            yield Moment(log, nanoseconds(message.header.stamp), message)
        except BadMessage as error:
            yield Moment(log, 0, error)


def _since(request: Request, journal: Journal) -> int | None:
    """Returns a log time that no image that is not done is before; None: the bag's beginning."""
    if not len(journal):
        return request.start
    _, newest = journal.span()
    return max(newest - FALL, request.start or 0)


def _is_of_this_camera(
    message: Any, image: Any, request: Request, wrong: Callable[[str], None]
) -> bool:
    """Whether detections are taken for an image; says why not."""
    doubt = of_another_camera(message.header, image.header)
    if not request.match_frame_id or not doubt:
        return True
    wrong(f"{request.detections}: {doubt} If not, give --no-match-frame-id")
    return False


def _companions(
    source: SourceBag,
    request: Request,
    journal: Journal,
    image: Moment | None,
    wrong: Callable[[str], None],
) -> Companions:
    """Returns the detections of `image`, the first that is not done, and of those after it."""
    topic = request.detections
    if not topic:
        return Companions(iter(()), 0, 0)
    begin = _since(request, journal) or 0
    stop = None if request.stop is None else request.stop + _REACH
    decode, as_standard = source.decoder(topic), detections_reader(source, request)

    def moments() -> Iterator[Moment]:
        for _, log, data in source.messages([topic], max(begin - _REACH, 0), stop):
            try:
                message = as_standard(decode(data))
                yield Moment(log, nanoseconds(message.header.stamp), message)
            except BadMessage as error:
                if not is_known:
                    wrong(f"{topic}: {error}")

    is_known = len(journal) > 0  # what was read along with the images that are done was said

    def lose(moment: Moment) -> None:
        if request.includes(moment.log) and not is_known:
            seconds, rest = divmod(moment.stamp, 1_000_000_000)
            wrong(
                f"{topic}: no image has stamp {seconds}.{rest:09} of its header: it is not in the "
                "bag, or the stamps differ (--match-slop)"
            )

    companions = Companions(moments(), request.match_slop, _REACH, lose)
    # As if it had gone on: what belongs to images that are done belongs to none after them.
    done = [Moment(log, stamp, None) for log, stamp in journal.moments(begin - 2 * _REACH)]
    for moment, following in zip(done, [*done[1:], image], strict=False):
        companions.of(moment, following)
    is_known = False
    return companions


def detections_reader(source: SourceBag, request: Request) -> Callable[[Any], Any]:
    """Returns what makes vision_msgs/msg/Detection2DArray of the messages of a detector.

    Raises:
        BagError: the topic is not there, or its messages cannot be read.
    """
    topic = request.detections
    kind = source.check(topic)
    own, others = result_classes(), PlainClasses(source.definitions(topic))

    def class_of(name: str) -> Any:
        return others(name) if others.knows(name) else own(name)

    try:
        _, as_standard = reader(kind, request.detections_fields, class_of)
        if kind == STANDARD:
            _ = class_of("vision_msgs/msg/BoundingBox2D")().center.position
    except ValueError as error:
        raise BagError(f"{source.path}: topic {topic}: {error}") from error
    except AttributeError as error:
        raise BagError(
            f"{source.path}: topic {topic}: is of a vision_msgs before 4, which is not read"
        ) from error
    return as_standard
