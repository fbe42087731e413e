"""What options say of the objects to segment: points and boxes as text, and how to look for all."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any

from mobile_sam.everything import EverythingSettings
from mobile_sam.prompts import Prompt

BOX_FORM = "X_MIN,Y_MIN,X_MAX,Y_MAX"
POINT_FORM = "X,Y"
POINTS_FORM = "X,Y X,Y !X,Y"

_EVERYTHING = {
    "points_per_side": "points of the grid along each side of the picture",
    "least_predicted_iou": "leave out masks that the model thinks worse of",
    "least_stability": "leave out masks that change more when cut a little higher or lower",
    "box_nms": "of masks whose boxes overlap more, keep the best",
    "crop_layers": "look again in 4, 16, … crops, for small objects",
    "least_region": "remove holes and islands of fewer pixels from the masks",
}


def box_prompt(text: str) -> Prompt:
    """Reads a box; errors are argparse's."""
    return _prompt(box=_numbers(text, 4, BOX_FORM))


def point_prompt(text: str) -> Prompt:
    """Reads a point on the object; errors are argparse's."""
    return _prompt(points=[_numbers(text, 2, POINT_FORM)])


def points_prompt(text: str) -> Prompt:
    """Reads points, with ! before those that are not on the object; errors are argparse's."""
    words = text.split()
    points = [_numbers(word.removeprefix("!"), 2, "X,Y or !X,Y") for word in words]
    return _prompt(points=points, labels=[0 if word.startswith("!") else 1 for word in words])


def _numbers(text: str, count: int, form: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count:
        raise argparse.ArgumentTypeError(f"{text!r} is not {form}")
    return values


def _prompt(**parts: Any) -> Prompt:
    try:
        return Prompt(**parts)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_everything_options(parser: argparse._ActionsContainer) -> None:
    """Adds an option for most of `EverythingSettings`."""
    defaults = {field.name: field.default for field in fields(EverythingSettings)}
    for name, meaning in _EVERYTHING.items():
        kind = type(defaults[name])
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=kind,
            default=defaults[name],
            metavar="N" if kind is int else "SHARE",
            help=f"{meaning} (%(default)s)",
        )


def everything_settings(options: argparse.Namespace) -> EverythingSettings:
    """Returns what these options say.

    Raises:
        ValueError: a value outside of its range; the message names both.
    """
    return EverythingSettings(**{name: getattr(options, name) for name in _EVERYTHING})
