"""Prompts: from messages to the model, and those that stay until they are cleared."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count

import numpy as np
from geometry_msgs.msg import Point
from numpy.typing import NDArray

import mobile_sam
from mobile_sam_ros.candidates import Candidate
from mobile_sam_ros.conversions import BadMessage, mask_from_image
from mobile_sam_ros.identity import Identity
from mobile_sam_ros.msg import Prompt as PromptMessage
from mobile_sam_ros.msg import PromptPoint

_FAR = 1e9  # pixels
_MOST_POINTS = 100  # of one prompt: the memory that all prompts of an image take grows with them


def prompt_points(
    message: PromptMessage, image_hw: tuple[int, int]
) -> tuple[NDArray[np.float32] | None, NDArray[np.int64] | None]:
    """Returns the points, float32 (K, 2), and labels, int64 (K,), of a prompt, or None and None.

    Raises:
        BadMessage: a point outside of the image, or too many.
    """
    if not message.points:
        return None, None
    if len(message.points) > _MOST_POINTS:
        raise BadMessage(f"points has {len(message.points)} points, more than {_MOST_POINTS}")
    height, width = image_hw
    for point in message.points:
        # Written so that NaN is outside too.
        if not (0 <= point.x < width and 0 <= point.y < height):
            raise BadMessage(
                f"point ({point.x:g}, {point.y:g}) lies outside of the image of {width}x{height}"
            )
    points = np.array([(point.x, point.y) for point in message.points], np.float32)
    return points, np.array([point.label for point in message.points], np.int64)


def point_prompt(point: Point, name: str) -> PromptMessage:
    """Returns a click as a prompt with the id `name`."""
    # What the message cannot hold is outside of all images anyway.
    x, y = (math.copysign(math.inf, v) if abs(v) > _FAR else float(v) for v in (point.x, point.y))
    clicked = PromptPoint(x=x, y=y, label=PromptPoint.FOREGROUND)
    return PromptMessage(id=name, points=[clicked])


def prompt_from_message(
    message: PromptMessage,
    image_hw: tuple[int, int],
    mask_logits: Callable[[NDArray[np.bool_]], NDArray[np.float32]],
) -> mobile_sam.Prompt:
    """Returns a prompt as the model takes it.

    Args:
        message: the prompt.
        image_hw: height and width of the image that it is about.
        mask_logits: `Predictor.mask_logits`, which makes a mask a prompt.

    Raises:
        ValueError: it cannot be used; the text names the field and its value.
    """
    points, labels = prompt_points(message, image_hw)
    box = None
    if len(message.box):
        if len(message.box) != 4:
            raise BadMessage(f"box has {len(message.box)} numbers, not x_min, y_min, x_max, y_max")
        box = np.array(message.box, np.float32)
        height, width = image_hw
        if np.isfinite(box).all():
            inside = np.clip(box, 0, [width, height, width, height])
            if (inside[2:] <= inside[:2]).any() and (box[2:] > box[:2]).all():
                shown = box.tolist()
                raise BadMessage(f"box {shown} lies outside of the image of {width}x{height}")
            box = inside.astype(np.float32) if (box[2:] > box[:2]).all() else box
    mask = None
    if message.mask.height:
        mask = mask_logits(mask_from_image(message.mask, image_hw))
    return mobile_sam.Prompt(box=box, points=points, labels=labels, mask_logits=mask)


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


class PromptStore:
    """The standing prompts. Used by the executor's thread alone, but for `named` and `remove`."""

    def __init__(self) -> None:
        self._prompts: dict[str, PromptMessage] = {}
        self._numbers = count(1)

    def named(self, prompts: Iterable[PromptMessage]) -> list[PromptMessage]:
        """Gives an id to each prompt that has none, no id twice and none that stands, and returns
        them all. Any thread may ask."""
        prompts = list(prompts)
        for prompt in prompts:
            if not prompt.id:
                names = (f"prompt_{number}" for number in self._numbers)
                prompt.id = next(name for name in names if name not in self._prompts)
        return prompts

    def keep(self, prompts: Iterable[PromptMessage], most: int) -> list[str]:
        """Keeps prompts; one of the same id is replaced. Of more than `most` the oldest ones are
        forgotten; returns their ids."""
        self._prompts |= {prompt.id: prompt for prompt in prompts}
        too_many = list(self._prompts)[: max(0, len(self._prompts) - most)]
        for id in too_many:
            self._prompts.pop(id, None)
        return too_many

    def remove(self, id: str) -> bool:
        """Forgets the prompt with an id; returns whether there was one. Any thread may ask."""
        return self._prompts.pop(id, None) is not None

    def rename(self, id: str, class_id: str) -> bool:
        """Gives the prompt with an id another class; returns whether there was one."""
        prompt = self._prompts.get(id)
        if prompt is not None:
            prompt.class_id = class_id
        return prompt is not None

    def clear(self) -> int:
        """Forgets all prompts and returns how many there were."""
        number = len(self._prompts)
        self._prompts.clear()
        return number

    def standing(self) -> list[PromptMessage]:
        """Returns the prompts that are kept, oldest first."""
        return list(self._prompts.values())
