"""The second pass over a bag: all of it into a new one, and after each image its results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.interfaces import Connection
from rosbags.rosbag2 import StoragePlugin

import mobile_sam
from mobile_sam_ros.bags.exports import Exports
from mobile_sam_ros.bags.journal import Journal, Result
from mobile_sam_ros.bags.matching import Moment
from mobile_sam_ros.bags.new_bag import NewBag, reliable
from mobile_sam_ros.bags.plain_messages import result_classes
from mobile_sam_ros.bags.segmenting import Request
from mobile_sam_ros.bags.source import BagError, SourceBag, embedded_types
from mobile_sam_ros.bags.space import Space
from mobile_sam_ros.conversions import rgb_from_message
from mobile_sam_ros.identity import Identity
from mobile_sam_ros.point_cloud import Solid
from mobile_sam_ros.results import (
    LABEL_INFO,
    LABEL_INFO_TYPE,
    THREE_D,
    TYPES,
    label_info_message,
    label_names,
    result_messages,
    segments_from_message,
)

OUTPUTS = (LABEL_INFO, *TYPES)
"""All that there may be, in the order in which they follow their image."""


@dataclass(frozen=True)
class Plan:
    """What the new bag gets.

    prefix: of the outputs' topics, as /sam.
    outputs: names, of `OUTPUTS`.
    storage, compress: of the new bag.
    alpha: of overlays.
    depth, camera_info: topics for 3-D outputs; empty: none.
    depth_slop: nanoseconds that the stamp of a depth image may differ from its image's.
    """

    prefix: str
    outputs: Sequence[str]
    storage: StoragePlugin
    compress: bool
    alpha: float
    depth: str = ""
    camera_info: str = ""
    depth_slop: int = 0

    def topic(self, output: str) -> str:
        """Returns the topic of an output."""
        return f"{self.prefix}/{output}"


def check_types(source: SourceBag, plan: Plan) -> None:
    """Checks that the topics to be copied are of the types that the outputs are of.

    A bag has one definition of each type: theirs would be taken for that of the outputs.

    Raises:
        BagError: one was recorded with another version of a type.
    """
    own = {plan.topic(output) for output in plan.outputs}
    store = result_classes().store
    for connection in source.connections:
        topic, name = connection.topic, connection.msgtype
        outputs = [output for output in plan.outputs if _type_of(output) == name]
        types = embedded_types(connection) if outputs and topic not in own else None
        if types is None or types.hash_rihs01(name) == store.hash_rihs01(name):
            continue
        advice = f"choose --outputs without {', '.join(outputs)}"
        for output in outputs:
            if topic.endswith(f"/{output}"):
                prefix = topic.removesuffix(f"/{output}") or "/"
                advice = f"leave it out with --prefix {prefix} --replace, or {advice}"
        raise BagError(
            f"{source.path}: topic {topic} was recorded with another version of {name}, and a bag "
            f"has one: {advice}"
        )


def _type_of(output: str) -> str:
    return LABEL_INFO_TYPE if output == LABEL_INFO else TYPES[output]


@dataclass
class Summary:
    """What was written.

    images: with results.
    objects: in all of them together, those with a mask.
    missing: what outputs could not be made of, as text.
    """

    images: int = 0
    objects: int = 0
    missing: list[str] = field(default_factory=list)


class _ResultTopics:
    """The outputs' topics in a new bag."""

    def __init__(self, bag: NewBag, plan: Plan) -> None:
        self._bag, self._plan = bag, plan
        self._classes = result_classes()
        self._topics: dict[str, Connection] = {}
        for output in OUTPUTS:
            if output in plan.outputs:
                name = _type_of(output)
                # As the node publishes them, so that a player does.
                qos = reliable(1, True) if output == LABEL_INFO else reliable(2, False)
                topic = plan.topic(output)
                self._topics[output] = bag.add_topic(topic, name, self._classes.store, qos)
        self._names: list[str] | None = None  # of the labels, as they were said last

    def read(self, result: bytes) -> Any:
        """Returns the mobile_sam_ros/msg/SegmentArray in a journal."""
        return self._classes.from_bytes(result, TYPES["segments"])

    def write(
        self,
        log: int,
        header: Any,
        image: NDArray[np.uint8],
        segments: mobile_sam.Segments,
        identities: Sequence[Identity],
        objects: Sequence[Solid] | None,
    ) -> None:
        plan, classes = self._plan, self._classes
        messages = result_messages(
            plan.outputs, header, image, segments, identities, plan.alpha, objects, classes
        )
        names = label_names(identities)
        if LABEL_INFO in self._topics and names != self._names:
            self._names = names
            messages[LABEL_INFO] = label_info_message(header, names, classes)
        for output, connection in self._topics.items():
            if output in messages:
                self._bag.write(connection, log, classes.to_bytes(messages[output]))


def assemble(
    source: SourceBag,
    request: Request,
    journal: Journal,
    plan: Plan,
    path: Path,
    exports: Exports,
    complain: Callable[[str], None],
    progress: Callable[[], None],
) -> Summary:
    """Writes the new bag. Topics of the old one that the outputs have, too, are left out.

    Args:
        source: the old one, open.
        request: what was segmented.
        journal: the results of all images.
        plan: what the new bag gets.
        path: its folder, which must not exist yet.
        exports: what else is made of the results.
        complain: called with what is wrong with a message.
        progress: called after each message of the old bag.

    Raises:
        BagError: the old bag is damaged, or a topic is not there.
        OSError: something cannot be written.
    """
    summary = Summary()
    with NewBag(path, plan.storage, plan.compress, complain) as bag, exports:
        own = {plan.topic(output) for output in plan.outputs}
        copied = {
            connection.id: bag.copy_topic(connection)
            for connection in source.connections
            if connection.topic not in own
        }
        for key, value in source.custom_data().items():
            bag.note(key, value)
        topics = _ResultTopics(bag, plan)
        space = None
        if not THREE_D.isdisjoint(plan.outputs):
            space = Space(
                *(source, plan.depth, plan.camera_info, plan.depth_slop, request.start, complain)
            )
        decode = source.decoder(request.image)
        results = _results(journal)
        number = 0
        for connection, log, data in source.messages():
            if connection.id in copied:
                bag.write(copied[connection.id], log, data)
            progress()
            if connection.topic != request.image or not request.includes(log):
                continue
            result, following = next(results, (None, None))
            number += 1
            if result is None or result.log != log:
                raise BagError(
                    f"{source.path}: image {number} is not the one that was segmented: begin anew "
                    "with --restart"
                )
            if result.segments is None:
                continue
            message = decode(data)
            image = rgb_from_message(message)
            segments, identities = segments_from_message(topics.read(result.segments))
            moment = Moment(log, result.stamp, message)
            objects = None
            if space is not None:
                objects = space.objects(moment, following, image, segments)
            topics.write(log, message.header, image, segments, identities, objects)
            exports.add(number - 1, message, image, segments, identities)
            summary.images += 1
            summary.objects += int(np.count_nonzero(segments.area))
        if space is not None:
            summary.missing = space.missing()
    return summary


def _results(journal: Journal) -> Iterator[tuple[Result, Moment | None]]:
    """Yields the results, each with the times of the image after it."""
    number, result = 0, journal.result(0)
    while result is not None:
        number += 1
        following = journal.result(number)
        yield result, None if following is None else Moment(following.log, following.stamp, None)
        result = following
