"""What a bag with masks in it says about them: how fast they came, and how good they are.

Read once, message by message; only numbers are kept, so that long bags can be measured.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobile_sam_ros.bags.matching import Companions, Moment
from mobile_sam_ros.bags.source import SourceBag
from mobile_sam_ros.conversions import BadMessage, crop_of, nanoseconds
from mobile_sam_ros.demo.boxes import labels_from_image
from mobile_sam_ros.diagnostics import status_values

SEGMENTS_TYPE = "mobile_sam_ros/msg/SegmentArray"
_DIAGNOSTICS = "/diagnostics"
_TRUTH_REACH = 3_000_000_000  # nanoseconds between the records of an image's truth and its masks
_LEAST_VISIBLE = 30  # pixels of a true object that can be asked for
# Numbers in an image rather than names: the next image has others by the same.
_NUMBERED = re.compile(r"(everything|detection)_\d+")


@dataclass(frozen=True)
class Mask:
    """One object in one image.

    stamp: of the image, nanoseconds.
    id: of the object.
    predicted_iou, stability: what the model says.
    consistency: IoU with its mask in the result before, centre on centre; None if it had none.
    """

    stamp: int
    id: str
    predicted_iou: float
    stability: float
    consistency: float | None


@dataclass(frozen=True)
class Truth:
    """A true object in one image.

    label: its value in the truth.
    iou: with the mask that is taken for it; 0 if there is none.
    """

    stamp: int
    label: int
    iou: float


@dataclass
class Measurements:
    """What was recorded.

    images, results: log time by stamp, in nanoseconds, of the images and of their masks.
    objects: masks in each image with results, by stamp; empty ones do not count.
    masks: all of them.
    truths: None if the bag has no truth.
    counters: what the node itself counted, the last time that it said so.
    damaged: messages that could not be read.
    unusable: what is wrong with images of the truth, and of how many.
    """

    images: dict[int, int] = field(default_factory=dict)
    results: dict[int, int] = field(default_factory=dict)
    objects: dict[int, int] = field(default_factory=dict)
    masks: list[Mask] = field(default_factory=list)
    truths: list[Truth] | None = None
    counters: dict[str, str] = field(default_factory=dict)
    damaged: int = 0
    unusable: Counter[str] = field(default_factory=Counter)

    @property
    def begin(self) -> int:
        """Log time of the first image, nanoseconds."""
        return min(self.images.values())

    def without_masks(self) -> list[int]:
        """Returns the stamps of the images that have no results, or none with a mask."""
        return [stamp for stamp in self.images if not self.objects.get(stamp)]

    def latencies(self) -> dict[int, float]:
        """Returns the seconds from an image's record to that of its masks, by stamp."""
        return {
            stamp: (log - self.images[stamp]) / 1e9
            for stamp, log in self.results.items()
            if stamp in self.images
        }

    def latencies_from_stamp(self) -> dict[int, float]:
        """Returns the seconds from an image's stamp to the record of its masks, by stamp."""
        return {stamp: (log - stamp) / 1e9 for stamp, log in self.results.items()}


def measure(source: SourceBag, image: str, segments: str, truth: str = "") -> Measurements:
    """Reads a bag.

    Args:
        source: open.
        image: topic of the images.
        segments: topic of mobile_sam_ros/msg/SegmentArray.
        truth: topic of label images, 0 where there is no object; empty: none.

    Raises:
        BagError: it is damaged.
    """
    found = Measurements(truths=[] if truth else None)
    for moment in _moments(source, image, found):
        found.images.setdefault(moment.stamp, moment.log)
    truths = Companions(_moments(source, truth, found) if truth else iter(()), 0, _TRUTH_REACH)
    before: Mapping[str, NDArray[np.bool_]] = {}
    for moment in _moments(source, segments, found):
        if moment.stamp in found.results:
            continue  # the same image again, as by a second prompt
        found.results[moment.stamp] = moment.log
        items = moment.message.segments
        crops = [crop_of(item) for item in items]
        found.objects[moment.stamp] = sum(bool(crop.any()) for crop in crops)
        now = {item.id: crop for item, crop in zip(items, crops, strict=True) if crop.any()}
        for item in items:
            if item.id in now:
                found.masks.append(_mask(moment.stamp, item, now[item.id], before.get(item.id)))
        before = now
        for near in truths.of(moment, None)[:1]:
            assert found.truths is not None
            try:
                labels = _labels(near.message, (moment.message.height, moment.message.width))
                found.truths += compared(moment.stamp, labels, items, crops)
            except BadMessage as error:
                found.unusable[f"{truth}: {error}"] += 1
    if any(c.topic == _DIAGNOSTICS and c.msgcount for c in source.connections):
        node = segments.rpartition("/")[0]
        for moment in _moments(source, _DIAGNOSTICS, found):
            found.counters = status_values(moment.message, node) or found.counters
    return found


def _moments(source: SourceBag, topic: str, found: Measurements) -> Iterator[Moment]:
    decode = source.decoder(topic)
    for _, log, data in source.messages([topic]):
        try:
            message: Any = decode(data)
            yield Moment(log, nanoseconds(message.header.stamp), message)
        except BadMessage:
            found.damaged += 1


def _labels(message: Any, image_hw: tuple[int, int]) -> NDArray[np.uint16]:
    labels = labels_from_image(message)
    if labels.shape != image_hw:
        raise BadMessage(
            f"label image has size {message.width}x{message.height}, the masks "
            f"{image_hw[1]}x{image_hw[0]}"
        )
    return labels


def _mask(stamp: int, item: Any, crop: NDArray[np.bool_], before: NDArray[np.bool_] | None) -> Mask:
    is_named = _NUMBERED.fullmatch(item.id) is None
    consistency = centred_iou(crop, before) if before is not None and is_named else None
    return Mask(stamp, item.id, float(item.predicted_iou), float(item.stability), consistency)


def centred_iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Returns the IoU of two masks, neither of them empty, that are laid centre on centre.

    So it says how alike their shapes are, wherever they lie: bool (h, w) each.
    """
    (y, x), (other_y, other_x) = (np.argwhere(mask).mean(axis=0) for mask in (one, other))
    down, right = round(float(y - other_y)), round(float(x - other_x))
    top, left = max(down, 0), max(right, 0)
    bottom = min(one.shape[0], other.shape[0] + down)
    end = min(one.shape[1], other.shape[1] + right)
    window = one[top:bottom, left:end]
    moved = other[top - down : bottom - down, left - right : end - right]
    common = np.count_nonzero(window & moved) if bottom > top and end > left else 0
    return common / (np.count_nonzero(one) + np.count_nonzero(other) - common)


def compared(
    stamp: int, labels: NDArray[np.uint16], items: Any, crops: list[NDArray[np.bool_]]
) -> list[Truth]:
    """Compares the masks of an image with the truth: each true object with one mask at most, those
    that overlap most first.

    Args:
        stamp: of the image.
        labels: uint16 (H, W), the true object at each pixel, 0 for none.
        items: N mobile_sam_ros/msg/Segment.
        crops: their masks, N.
    """
    areas = np.bincount(labels.ravel())
    visible = [label for label in range(1, len(areas)) if areas[label] >= _LEAST_VISIBLE]
    pairs = []
    for number, (item, crop) in enumerate(zip(items, crops, strict=True)):
        x, y = item.roi.x_offset, item.roi.y_offset
        inside = labels[y : y + crop.shape[0], x : x + crop.shape[1]][crop]
        common = np.bincount(inside, minlength=len(areas))
        for label in visible:
            union = areas[label] + len(inside) - common[label]
            pairs.append((float(common[label] / union), label, number))
    best = dict.fromkeys(visible, 0.0)
    taken: set[int] = set()
    for iou, label, number in sorted(pairs, reverse=True):
        if iou > 0 and not best[label] and number not in taken:
            best[label] = iou
            taken.add(number)
    return [Truth(stamp, label, iou) for label, iou in best.items()]
