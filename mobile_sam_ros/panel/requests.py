"""What the page asks for: JSON in, checked, dataclasses out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from mobile_sam.quoting import quoted

_LONGEST_NAME = 200
_MOST_POINTS = 100
FOLLOW, STAY, ONCE = "follow", "stay", "once"
_MODES = (FOLLOW, STAY, ONCE)


class BadRequest(ValueError):
    """A request that cannot be understood; the text names the field and its value."""


@dataclass(frozen=True)
class Next:
    """The next picture, newer than the one with the number `after`."""

    after: int


@dataclass(frozen=True)
class Show:
    """An object, shown by points or a box in a picture, both in pixels of the image.

    number: of the picture.
    id: the object; empty: a new one. One that is in the picture needs neither points nor box.
    points: x, y and whether the object is there.
    box: x_min, y_min, x_max, y_max; None: none.
    mode: FOLLOW, STAY or ONCE.
    still: whether it is to be seen in this very picture.
    """

    number: int
    id: str
    points: tuple[tuple[float, float, bool], ...]
    box: tuple[float, float, float, float] | None
    mode: str
    still: bool


@dataclass(frozen=True)
class Remove:
    """The object with this id is to be forgotten."""

    id: str


@dataclass(frozen=True)
class Rename:
    """The object with this id gets another name."""

    id: str
    name: str


@dataclass(frozen=True)
class Clear:
    """All objects are to be forgotten."""


@dataclass(frozen=True)
class Everything:
    """Everything in a picture is to be segmented.

    number: of the picture.
    """

    number: int


Request = Next | Show | Remove | Rename | Clear | Everything


def parse(text: str) -> Request:
    """Returns what was asked for.

    Raises:
        BadRequest: it is not understood.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise BadRequest(f"not an object, but {type(fields).__name__}")
    match fields.get("do"):
        case "next":
            return Next(_number(fields, "after"))
        case "show":
            return _show(fields)
        case "remove":
            return Remove(_name(fields, "id"))
        case "rename":
            return Rename(_name(fields, "id"), _name(fields, "name"))
        case "clear":
            return Clear()
        case "everything":
            return Everything(_number(fields, "number"))
        case other:
            raise BadRequest(f"do is {other!r}, which is none of the requests")


def _show(fields: dict[str, Any]) -> Show:
    mode = fields.get("mode")
    if mode not in _MODES:
        raise BadRequest(f"mode is {mode!r}, none of {', '.join(_MODES)}")
    points = fields.get("points", [])
    if not isinstance(points, list) or len(points) > _MOST_POINTS:
        raise BadRequest(f"points is not a list of at most {_MOST_POINTS}")
    box = fields.get("box")
    show = Show(
        number=_number(fields, "number"),
        id=_name(fields, "id"),
        points=tuple(_point(point) for point in points),
        box=None if box is None else _box(box),
        mode=mode,
        still=bool(fields.get("still")),
    )
    if not show.id and not show.points and show.box is None:
        raise BadRequest("a new object needs points or a box")
    return show


def _point(value: Any) -> tuple[float, float, bool]:
    if not isinstance(value, list) or len(value) != 3:
        raise BadRequest(f"point {value!r} is not [x, y, foreground]")
    x, y = _finite(value[:2])
    return x, y, bool(value[2])


def _box(value: Any) -> tuple[float, float, float, float]:
    if not isinstance(value, list) or len(value) != 4:
        raise BadRequest(f"box {value!r} is not [x_min, y_min, x_max, y_max]")
    x_min, y_min, x_max, y_max = _finite(value)
    return x_min, y_min, x_max, y_max


def _finite(values: list[Any]) -> list[float]:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadRequest(f"{value!r} is not a number")
        if not abs(value) <= 1e6:  # written so that NaN is none, and no integer too large
            raise BadRequest(f"{quoted(value)} is not a place in an image")
    return [float(value) for value in values]


def _number(fields: dict[str, Any], key: str) -> int:
    value = fields.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadRequest(f"{key} is {value!r}, not a whole number")
    return value


def _name(fields: dict[str, Any], key: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str) or len(value) > _LONGEST_NAME or not value.isprintable():
        raise BadRequest(f"{key} is not a printable text of at most {_LONGEST_NAME} characters")
    return value.strip()
