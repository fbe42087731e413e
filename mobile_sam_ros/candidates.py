"""What might be segmented in an image: of all detections and prompts, those that are worth it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from vision_msgs.msg import Detection2D

import mobile_sam
from mobile_sam.quoting import quoted
from mobile_sam_ros.conversions import BadMessage, box_from_detection
from mobile_sam_ros.following import Shown
from mobile_sam_ros.identity import Identity
from mobile_sam_ros.msg import Prompt as PromptMessage
from mobile_sam_ros.parameters import Parameters
from mobile_sam_ros.prompts import prompt_from_message

_NAMED = 5  # of those that are left out


@dataclass(frozen=True)
class Candidate:
    """An object that somebody asks for.

    identity: what it is called.
    make: makes the prompt for the model, or raises ValueError.
    what: its kind and where it came from, for messages.
    """

    identity: Identity
    make: Callable[[], mobile_sam.Prompt]
    what: str


def of_detections(
    detections: Sequence[Detection2D],
    image_hw: tuple[int, int],
    parameters: Parameters,
    topic: str,
    unnamed: str,
) -> Iterator[Candidate]:
    """Yields the detections that count by score and class.

    Args:
        detections: of the image.
        image_hw: its height and width.
        parameters: which count, and how their boxes are meant.
        topic: for messages.
        unnamed: what those without an id are called, with their number.
    """
    classes = {name.strip() for name in parameters.classes.split(",") if name.strip()}
    detector_hw = (parameters.detections_height, parameters.detections_width)
    for index, detection in enumerate(detections):
        best = max(detection.results, key=lambda r: r.hypothesis.score, default=None)
        identity = Identity(
            detection.id or unnamed.format(index),
            best.hypothesis.class_id if best else "",
            best.hypothesis.score if best else 1.0,
        )
        if identity.score < parameters.min_score:
            continue
        if classes and identity.class_id not in classes:
            continue

        def make(
            detection: Detection2D = detection, score: float = identity.score
        ) -> mobile_sam.Prompt:
            if not math.isfinite(score):
                raise BadMessage(f"score {score:g} is not finite")
            box = box_from_detection(detection.bbox, image_hw, parameters.box_padding, detector_hw)
            return mobile_sam.Prompt(box=box)

        yield Candidate(identity, make, f"{topic}: detection")


def of_prompts(
    prompts: Sequence[PromptMessage],
    image_hw: tuple[int, int],
    mask_logits: Callable[[NDArray[np.bool_]], NDArray[np.float32]],
    topic: str,
) -> Iterator[Candidate]:
    """Yields prompts; `mask_logits` is `Predictor.mask_logits`, the others as for detections."""
    for message in prompts:

        def make(message: PromptMessage = message) -> mobile_sam.Prompt:
            return prompt_from_message(message, image_hw, mask_logits)

        yield Candidate(Identity(message.id, message.class_id), make, f"{topic}: prompt")


def best(
    candidates: Sequence[Candidate], most: int, complain: Callable[[str], None]
) -> tuple[list[Shown], list[str]]:
    """Returns what is to be segmented, and the ids of what is left out.

    Of more than `most`, those with the highest score stay, in the order in which they came. No work
    is done for the others. What cannot be used takes no place, and is said.
    """
    found: list[tuple[int, Shown]] = []
    left_out: list[str] = []

    def rank(index: int) -> float:
        score = candidates[index].identity.score
        return -score if math.isfinite(score) else -math.inf  # to be said, and first of all

    for index in sorted(range(len(candidates)), key=rank):
        candidate = candidates[index]
        if len(found) == most:
            left_out.append(candidate.identity.id)
            continue
        try:
            found.append((index, (candidate.make(), candidate.identity)))
        except ValueError as error:
            complain(f"{candidate.what} {quoted(candidate.identity.id)}: {error}")
    return [shown for _, shown in sorted(found, key=lambda item: item[0])], left_out


def why_left_out(count: int, most: int, left_out: Sequence[str]) -> str:
    """Returns what the user is told of objects that are too many."""
    names = ", ".join(quoted(id) for id in left_out[:_NAMED])
    more = f" and {len(left_out) - _NAMED} others" if len(left_out) > _NAMED else ""
    return (
        f"{count} objects in one image, parameter max_objects is {most}: left out are those with "
        f"the lowest score, {names}{more}"
    )
