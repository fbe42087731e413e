"""Boxes of detectors that do not speak vision_msgs: any message with a header and a list of boxes,
read by a layout that says where in it what stands.

A layout is text: `key=field.field` pairs, separated by spaces or commas.

    items                       the list, in the message; all others are fields of its items
    x y width height            centre and size of a box, in pixels
    x_min y_min x_max y_max     or its corners
    theta                       its rotation, in radians (0)
    id class score              what is carried through (empty, empty, 1)
    header                      in the message (header)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import reduce
from typing import TYPE_CHECKING, Any

from mobile_sam_ros.message_classes import ClassOf, ros_class

if TYPE_CHECKING:
    from vision_msgs.msg import Detection2DArray

from mobile_sam.quoting import quoted

STANDARD = "vision_msgs/msg/Detection2DArray"
LAYOUTS = {
    # yolo_ros; github.com/mgonzs13/yolo_ros, yolo_msgs/msg of 4.6.1.
    "yolo_msgs/msg/DetectionArray": (
        "items=detections id=id class=class_name score=score theta=bbox.center.theta "
        "x=bbox.center.position.x y=bbox.center.position.y width=bbox.size.x height=bbox.size.y"
    ),
}
"""Layouts of types that are known."""

_CENTRED = ("x", "y", "width", "height")
_CORNERS = ("x_min", "y_min", "x_max", "y_max")
_OPTIONAL = ("theta", "id", "class", "score")


def parse_layout(text: str) -> dict[str, str]:
    """Reads a layout.

    Raises:
        ValueError: not of the form, an unknown key, or one is missing; the message names it.
    """
    pairs = [part.partition("=") for part in re.split(r"[\s,]+", text.strip()) if part]
    for key, equals, path in pairs:
        if not equals or not path:
            raise ValueError(
                f"detections_fields: {quoted(key + equals + path)} is not key=field.field"
            )
    layout = {key: path for key, _, path in pairs}
    known = {"items", "header", *_CENTRED, *_CORNERS, *_OPTIONAL}
    for key in layout:
        if key not in known:
            among = ", ".join(sorted(known))
            raise ValueError(f"detections_fields: {quoted(key)} is none of {among}")
    box = _CORNERS if "x_min" in layout else _CENTRED
    for key in ("items", *box):
        if key not in layout:
            raise ValueError(f"detections_fields: {key!r} is missing")
    return {"header": "header"} | layout


def get(message: Any, path: str) -> Any:
    """Returns the field at a path, as `bbox.center.x`.

    Raises:
        AttributeError: there is none.
    """
    return reduce(getattr, path.split("."), message)


def message_type(name: str, class_of: ClassOf = ros_class) -> Any:
    """Returns the class of a message type, by a name such as `vision_msgs/msg/Detection2DArray`.

    Raises:
        ValueError: it is not of this form, or not installed.
    """
    parts = re.fullmatch(r"([a-z]\w*)/msg/([A-Z]\w*)", name, re.ASCII)
    if parts:
        try:
            return class_of(name)
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"detections_type: {name} is not there: {error}. Is its package installed and "
                "sourced?"
            ) from error
    raise ValueError(f"detections_type: {quoted(name)} is not of the form package/msg/Name")


def reader(
    name: str, fields: str, class_of: ClassOf = ros_class
) -> tuple[Any, Callable[[Any], Detection2DArray]]:
    """Returns the class of a detector's messages, and what makes standard ones of them.

    Args:
        name: of the type, as `yolo_msgs/msg/DetectionArray`.
        fields: a layout; empty: that of `LAYOUTS`, or none for the standard type.
        class_of: where the classes come from.

    Raises:
        ValueError: the type is not there, its layout is not known, or has fields that the type has
            not.
    """
    kind = message_type(name, class_of)
    if name == STANDARD and not fields:
        return kind, lambda message: message
    if not fields and name not in LAYOUTS:
        raise ValueError(
            f"detections_type: the layout of {name} is not known: say it by detections_fields"
        )
    layout = parse_layout(fields or LAYOUTS[name])
    _check(kind, name, layout, class_of)
    return kind, lambda message: standard(message, layout, class_of)


def _check(kind: Any, name: str, layout: Mapping[str, str], class_of: ClassOf) -> None:
    """Looks for all fields of a layout in an empty message, and reads an empty item by it.

    Types are fixed, so that what can be read here can be read of every message.
    """
    message = kind()

    def found(of: Any, key: str, what: str) -> Any:
        try:
            return get(of, layout[key])
        except AttributeError:
            raise ValueError(
                f"detections_fields: {key}={layout[key]}: {what} has no such field"
            ) from None

    if not isinstance(found(message, "header", name), class_of("std_msgs/msg/Header")):
        raise ValueError(f"detections_fields: header={layout['header']} is no std_msgs/Header")
    found(message, "items", name)
    *outer, last = layout["items"].split(".")
    holder = get(message, ".".join(outer)) if outer else message
    kinds = holder.get_fields_and_field_types()[last]
    match = re.fullmatch(r"sequence<(\w+)/(\w+)(, \d+)?>", kinds)
    if match is None:
        raise ValueError(f"detections_fields: items={layout['items']}: {kinds} is no list of boxes")
    item = f"{match[1]}/msg/{match[2]}"
    empty = message_type(item, class_of)()
    for key in layout.keys() - {"header", "items", "id", "class"}:
        value = found(empty, key, item)
        if not isinstance(value, (int, float)):
            raise ValueError(
                f"detections_fields: {key}={layout[key]}: {type(value).__name__} is no number"
            )
    for key in layout.keys() & {"id", "class"}:
        found(empty, key, item)


def standard(
    message: Any, layout: Mapping[str, str], class_of: ClassOf = ros_class
) -> Detection2DArray:
    """Returns a detector's message as the standard type has it."""
    result = class_of(STANDARD)(header=get(message, layout["header"]))
    for item in get(message, layout["items"]):
        values = {k: get(item, v) for k, v in layout.items() if k not in ("header", "items")}
        kind = class_of("vision_msgs/msg/Detection2D")
        detection = kind(header=result.header, id=str(values.get("id", "")))
        if "x_min" in values:
            low = float(values["x_min"]), float(values["y_min"])
            high = float(values["x_max"]), float(values["y_max"])
            centre = (low[0] + high[0]) / 2, (low[1] + high[1]) / 2
            size = high[0] - low[0], high[1] - low[1]
        else:
            centre = float(values["x"]), float(values["y"])
            size = float(values["width"]), float(values["height"])
        box = detection.bbox
        box.center.position.x, box.center.position.y = centre
        box.center.theta = float(values.get("theta", 0.0))
        box.size_x, box.size_y = size
        hypothesis = class_of("vision_msgs/msg/ObjectHypothesisWithPose")()
        hypothesis.hypothesis.class_id = str(values.get("class", ""))
        hypothesis.hypothesis.score = float(values.get("score", 1.0))
        detection.results.append(hypothesis)
        result.detections.append(detection)
    return result


def of_another_camera(detections: Any, image: Any) -> str:
    """Returns why detections may be of another camera than the image of their stamp, by the headers
    of both; empty if they are not: cameras that are triggered together have equal stamps."""
    given, wanted = detections.frame_id, image.frame_id
    if not given or not wanted or given == wanted:
        return ""
    return (
        f"frame_id {quoted(given)} is not that of the image of its stamp, {quoted(wanted)}: is "
        "this another camera's?"
    )
