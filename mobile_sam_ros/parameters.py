"""The node's parameters: each declared once, here; docs and checks are made from this."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from mobile_sam.choices import BACKENDS, DEFAULT_WEIGHTS, PRECISIONS
from mobile_sam_ros.conversions import MOST_PIXELS


def _parameter(
    default: Any,
    description: str,
    *,
    limits: tuple[float, float] | None = None,
    choices: tuple[str, ...] = (),
    read_only: bool = False,
) -> Any:
    metadata = {
        "description": description,
        "limits": limits,
        "choices": choices,
        "read_only": read_only,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Parameters:
    """Values of all parameters at one moment."""

    weights: str = _parameter(
        DEFAULT_WEIGHTS,
        "Weights by name (mobile_sam_512, mobile_sam, demo), a file, or an ONNX export.",
        read_only=True,
    )
    device: str = _parameter(
        "auto", "Device of torch, as cpu or cuda:0; auto: a GPU if there is one.", read_only=True
    )
    backend: str = _parameter(
        "auto",
        "What runs the model; auto: OpenVINO on a CPU if it is installed, else PyTorch.",
        choices=BACKENDS,
        read_only=True,
    )
    precision: str = _parameter(
        "auto", "Of the image encoder; auto: fp32.", choices=PRECISIONS, read_only=True
    )
    encode_padding: bool = _parameter(
        False,
        "Encode an image's padding as well, exactly as SAM does: slower, and hardly different.",
        read_only=True,
    )
    image_transport: str = _parameter(
        "raw",
        "raw: images on `image`; compressed: JPEG or PNG on `image/compressed`.",
        choices=("raw", "compressed"),
        read_only=True,
    )
    autostart: bool = _parameter(
        True, "Configure and activate at start, without a lifecycle manager.", read_only=True
    )
    frame_buffer: int = _parameter(
        20,
        "Number of the newest images that are kept for detections and prompts to refer to.",
        limits=(1, 1000),
        read_only=True,
    )
    max_image_pixels: int = _parameter(
        MOST_PIXELS,
        "Images with more pixels are refused, compressed ones before they are decoded.",
        limits=(1, 1_000_000_000),
    )
    match_slop: float = _parameter(
        0.0,
        "Seconds that the stamp of a detection may differ from its image's, if none is equal.",
        limits=(0.0, 10.0),
    )
    stale_after: float = _parameter(
        1.0,
        "Seconds after its arrival when an image is no longer worth segmenting; 0: never.",
        limits=(0.0, 3600.0),
    )
    depth_slop: float = _parameter(
        0.02,
        "Seconds that the stamp of a depth image may differ from the image's, if none is equal.",
        limits=(0.0, 10.0),
    )
    detections_type: str = _parameter(
        "vision_msgs/msg/Detection2DArray",
        "Type of the messages on `detections`, as yolo_msgs/msg/DetectionArray of yolo_ros.",
        read_only=True,
    )
    detections_fields: str = _parameter(
        "",
        "Where in another type what stands, as `items=boxes x_min=left y_min=top x_max=right "
        "y_max=bottom class=name score=confidence`; empty for types that are known.",
        read_only=True,
    )
    detections_width: int = _parameter(
        0,
        "Width of the images that detections are in pixels of, if the detector resizes; 0: equal.",
        limits=(0, 100000),
    )
    detections_height: int = _parameter(0, "The same, height.", limits=(0, 100000))
    match_frame_id: bool = _parameter(
        True,
        "Detections with another frame_id than the image of their stamp are refused.",
    )
    min_score: float = _parameter(
        0.0, "Detections with a lower score are ignored.", limits=(0.0, 1.0)
    )
    classes: str = _parameter(
        "", "Classes of detections that count, separated by commas; empty: all of them."
    )
    box_padding: float = _parameter(
        0.0,
        "Share of its size by which each side of a detection's box is moved outwards.",
        limits=(0.0, 1.0),
    )
    track_detections: bool = _parameter(
        False,
        "Detections start objects that are followed on all images, and show them anew when they "
        "were lost.",
    )
    track_clicks: bool = _parameter(
        False, "A click starts an object that is followed, rather than one at that place."
    )
    track_overlap: float = _parameter(
        0.5,
        "IoU of the boxes from which on a detection without a known id is of a followed object.",
        limits=(0.0, 1.0),
    )
    track_forget_after: float = _parameter(
        30.0,
        "Seconds after which a followed object that is lost is forgotten; 0: never.",
        limits=(0.0, 3600.0),
    )
    max_objects: int = _parameter(
        64, "Objects an image at most; those with the highest score stay.", limits=(1, 1000)
    )
    overlay_alpha: float = _parameter(
        0.5, "How strongly the overlay colours the objects.", limits=(0.0, 1.0)
    )
    everything_period: float = _parameter(
        0.0,
        "Seconds after which everything in the newest image is segmented again; 0: never.",
        limits=(0.0, 3600.0),
    )
    everything_points_per_side: int = _parameter(
        16, "Points of the grid along each side, for everything.", limits=(1, 64)
    )
    everything_min_predicted_iou: float = _parameter(
        0.8, "Of everything, masks that the model thinks worse of are left out.", limits=(0.0, 1.0)
    )
    everything_min_stability: float = _parameter(
        0.9,
        "Of everything, masks that change more when cut a little differently are left out.",
        limits=(0.0, 1.0),
    )
    silence_warning: float = _parameter(
        5.0,
        "Seconds without an image after which the likely cause is said, once; 0: never.",
        limits=(0.0, 3600.0),
    )
    hang_timeout: float = _parameter(
        0.0,
        "Seconds without any Python running after which the process ends, to be started again; "
        "0: never; else 1 at least. Of several cameras in one process, the shortest counts.",
        limits=(0.0, 3600.0),
    )


def _fields() -> dict[str, dataclasses.Field[Any]]:
    return {item.name: item for item in dataclasses.fields(Parameters)}


def _descriptor(item: dataclasses.Field[Any]) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(
        description=item.metadata["description"], read_only=item.metadata["read_only"]
    )
    if item.metadata["choices"]:
        descriptor.additional_constraints = "one of " + ", ".join(item.metadata["choices"])
    if item.metadata["limits"]:
        low, high = item.metadata["limits"]
        if isinstance(item.default, int):
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
        else:
            limits = FloatingPointRange(from_value=float(low), to_value=float(high))
            descriptor.floating_point_range = [limits]
    return descriptor


def declare(node: Node) -> Parameters:
    """Declares all parameters on `node` and returns their values.

    Raises:
        rclpy.exceptions.ParameterException: a given value has another type or is out of range.
        ValueError: a given value is none of the choices.
    """
    for name, item in _fields().items():
        node.declare_parameter(name, item.default, _descriptor(item))
    values = read(node)
    for name in _fields():
        problem = _problem(name, getattr(values, name))
        if problem:
            raise ValueError(problem)
    return values


def read(node: Node) -> Parameters:
    """Returns the present values of the parameters that `declare` declared."""
    return Parameters(**{name: node.get_parameter(name).value for name in _fields()})


def check(changes: Sequence[Parameter]) -> SetParametersResult:
    """Says whether a change is acceptable; types, ranges and read-only rclpy checks itself."""
    problems = [_problem(change.name, change.value) for change in changes]
    reason = "; ".join(problem for problem in problems if problem)
    return SetParametersResult(successful=not reason, reason=reason)


def changed(values: Parameters, changes: Sequence[Parameter]) -> Parameters:
    """Returns the values after changes that `check` found acceptable."""
    known = _fields()
    return dataclasses.replace(values, **{c.name: c.value for c in changes if c.name in known})


def _problem(name: str, value: object) -> str:
    choices = _fields()[name].metadata["choices"] if name in _fields() else ()
    if choices and value not in choices:
        return f"parameter {name}: {value!r} is none of {', '.join(choices)}"
    return ""


def markdown_table() -> str:
    """Returns the parameters as a table, for the documentation."""
    rows = ["| parameter | default | range | at run time | what it does |", "|---|---|---|---|---|"]
    for name, item in _fields().items():
        data = item.metadata
        limits = ", ".join(data["choices"])
        if data["limits"]:
            limits = " to ".join(f"{limit:g}" for limit in data["limits"])
        default = str(item.default).lower() if isinstance(item.default, bool) else item.default
        change = "fixed" if data["read_only"] else "yes"
        rows.append(f"| `{name}` | {default} | {limits} | {change} | {data['description']} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(markdown_table())
