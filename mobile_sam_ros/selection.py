"""Which detections count, and what the model is asked for each of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import mobile_sam
from mobile_sam_ros.conversions import box_from_detection
from mobile_sam_ros.identity import Identity, Shown

if TYPE_CHECKING:
    from vision_msgs.msg import Detection2D


@dataclass(frozen=True)
class Selection:
    """What is taken of a detector.

    min_score: detections with a lower one are ignored.
    classes: those that count; empty: all of them.
    box_padding: share of its size by which each side of a box is moved outwards.
    detector_hw: height and width of the images that boxes are in pixels of; 0: as the image has it.
    """

    min_score: float = 0.0
    classes: Collection[str] = ()
    box_padding: float = 0.0
    detector_hw: tuple[int, int] = (0, 0)


def class_names(text: str) -> frozenset[str]:
    """Returns the names in a list that is separated by commas."""
    return frozenset(name.strip() for name in text.split(",") if name.strip())


def detected(
    detections: Sequence[Detection2D],
    image_hw: tuple[int, int],
    selection: Selection,
    complain: Callable[[str], None],
    unnamed: str = "detection_{}",
) -> list[Shown]:
    """Returns the detections that count, as prompts; says what is wrong with others.

    Args:
        detections: of one image.
        image_hw: its height and width.
        selection: what counts.
        complain: called with each that cannot be used and why.
        unnamed: what those without an id are called, with their number.
    """
    found: list[Shown] = []
    for index, detection in enumerate(detections):
        best = max(detection.results, key=lambda r: r.hypothesis.score, default=None)
        identity = Identity(
            detection.id or unnamed.format(index),
            best.hypothesis.class_id if best else "",
            best.hypothesis.score if best else 1.0,
        )
        if identity.score < selection.min_score:
            continue
        if selection.classes and identity.class_id not in selection.classes:
            continue
        try:
            box = box_from_detection(
                detection.bbox, image_hw, selection.box_padding, selection.detector_hw
            )
            found.append((mobile_sam.Prompt(box=box), identity))
        except ValueError as error:
            complain(f"detection {identity.id!r}: {error}")
    return found


def strongest(shown: list[Shown], most: int, complain: Callable[[str], None]) -> list[Shown]:
    """Returns at most so many objects, those with the highest scores; says if there are more."""
    if len(shown) <= most:
        return shown
    complain(
        f"{len(shown)} objects in one image, parameter max_objects is {most}: those with the "
        "lowest score are left out"
    )
    return sorted(shown, key=lambda item: -item[1].score)[:most]
