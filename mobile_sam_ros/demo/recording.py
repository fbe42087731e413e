"""What a bag of the demo says, read back: the proof is in the bag, not in what the nodes say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.highlevel import AnyReader

from mobile_sam_ros.conversions import crop_of, nanoseconds, rgb_from_image
from mobile_sam_ros.demo.boxes import labels_from_image
from mobile_sam_ros.diagnostics import status_values

SAM = "/sam"
IMAGE, TRUTH, DETECTIONS = "/image", "/truth/labels", "/detections"
SEGMENTS, OVERLAY, DIAGNOSTICS = f"{SAM}/segments", f"{SAM}/overlay", "/diagnostics"

# When a message of each stamp arrived; both in nanoseconds.
Arrivals = dict[int, int]


@dataclass(frozen=True)
class Overlap:
    """How well one object was segmented in one image.

    iou: intersection over union of its mask and the truth; 0 where it has no segment.
    """

    stamp: int
    id: str
    iou: float


def mean_iou(overlaps: Sequence[Overlap]) -> float:
    """Returns the mean over all objects in all images, each counting the same; 0 of none."""
    return float(np.mean([overlap.iou for overlap in overlaps])) if overlaps else 0.0


@dataclass
class Recording:
    """What was recorded.

    arrivals: by topic, of the topics with headers.
    counts: messages by topic.
    overlaps: of all detected objects in the segmented images; None without truth.
    objects: number of segments in each segmented image, by stamp.
    statistics: the node's last status on /diagnostics.
    """

    arrivals: dict[str, Arrivals] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    overlaps: list[Overlap] | None = None
    objects: dict[int, int] = field(default_factory=dict)
    statistics: dict[str, str] = field(default_factory=dict)


def messages(bag: Path, topics: Sequence[str]) -> Iterator[tuple[str, int, Any]]:
    """Yields topic, time of arrival (nanoseconds) and message, in the order of arrival.

    By the definitions in the bag itself: who gets it needs nothing else.
    """
    with AnyReader([bag]) as reader:
        wanted = [connection for connection in reader.connections if connection.topic in topics]
        # Without connections, the reader would take that for all of them.
        for connection, arrival, data in reader.messages(wanted) if wanted else ():
            yield connection.topic, arrival, reader.deserialize(data, connection.msgtype)


def mask_overlap(segment: Any, inside: NDArray[np.bool_]) -> float:
    """Returns the intersection over union of a segment and the truth.

    Args:
        segment: mobile_sam_ros/msg/Segment.
        inside: bool (H, W), of the whole image.
    """
    roi, mask = segment.roi, crop_of(segment)
    under = inside[roi.y_offset : roi.y_offset + roi.height, roi.x_offset :][:, : roi.width]
    common = np.count_nonzero(mask & under) if mask.size else 0
    union = np.count_nonzero(mask) + np.count_nonzero(inside) - common
    return common / union if union else 0.0


def overlaps(
    stamp: int, detected: Sequence[str], segments: Sequence[Any], truth: NDArray[np.uint16]
) -> list[Overlap]:
    """Compares the segments of an image with the truth.

    Args:
        stamp: of the image.
        detected: ids of the detections, the labels of the truth.
        segments: mobile_sam_ros/msg/Segment, matched to the detections by id.
        truth: uint16 (H, W).
    """
    found = {segment.id: segment for segment in segments}
    return [
        Overlap(stamp, name, mask_overlap(found[name], truth == int(name)) if name in found else 0)
        for name in detected
    ]


def read_recording(bag: Path) -> Recording:
    """Reads a bag of the demo.

    Raises:
        rosbags.highlevel.AnyReaderError: it cannot be read.
    """
    recording = Recording()
    with AnyReader([bag]) as reader:
        for topic, info in reader.topics.items():
            recording.counts[topic] = info.msgcount
    if recording.counts.get(TRUTH):
        recording.overlaps = []
    detected: dict[int, list[str]] = {}
    segments: dict[int, Sequence[Any]] = {}
    topics = (IMAGE, DETECTIONS, SEGMENTS, OVERLAY, DIAGNOSTICS)
    recording.arrivals = {topic: {} for topic in (*topics, TRUTH) if topic != DIAGNOSTICS}
    for topic, arrival, message in messages(bag, topics):
        if topic == DIAGNOSTICS:
            recording.statistics = status_values(message, SAM) or recording.statistics
            continue
        stamp = nanoseconds(message.header.stamp)
        recording.arrivals[topic][stamp] = arrival
        if topic == DETECTIONS:
            detected[stamp] = [detection.id for detection in message.detections]
        elif topic == SEGMENTS:
            segments[stamp] = message.segments
            recording.objects[stamp] = len(message.segments)
    # The truth in a pass of its own: it may have been recorded after what was made of it, and
    # label images are too large to keep them all.
    for _, arrival, message in messages(bag, (TRUTH,)):
        stamp = nanoseconds(message.header.stamp)
        recording.arrivals[TRUTH][stamp] = arrival
        if recording.overlaps is not None and stamp in segments and stamp in detected:
            truth = labels_from_image(message)
            recording.overlaps += overlaps(stamp, detected[stamp], segments[stamp], truth)
    return recording


def read_overlays(bag: Path, stamps: Sequence[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yields the overlays of the given stamps, uint8 (H, W, 3) RGB, in the order of the bag."""
    for _, _, message in messages(bag, (OVERLAY,)):
        stamp = nanoseconds(message.header.stamp)
        if stamp in stamps:
            yield stamp, rgb_from_image(message)
