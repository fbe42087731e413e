"""Parameters, parameter files and layouts as users write them: each is taken, or one line says what
is wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import strategies as some
import yaml
from effort import cases
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rclpy.context import Context
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from vision_msgs.msg import Detection2D, Detection2DArray

from mobile_sam.quoting import first_line
from mobile_sam_ros import parameters
from mobile_sam_ros.detections import parse_layout, reader, standard
from mobile_sam_ros.parameters import Parameters

NAMES = st.sampled_from([*vars(Parameters()), "use_sim_time", "nonsense"])
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | some.text
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(some.text, SCALARS, max_size=2)
KEYS = st.sampled_from("items header x y width height x_min y_min x_max y_max id score a".split())
PATHS = st.sampled_from(
    ["detections", "bbox.center.position.x", "bbox.size_x", "id", "", ".", "__class__", "a b"]
)
TYPES = st.sampled_from(
    ["vision_msgs/msg/Detection2DArray", "sensor_msgs/msg/Image", "std_msgs/msg/Header", "a/msg/B",
     "../msg/x", "os/msg/system", "vision_msgs/msg/__doc__", "vision_msgs/msg/_detection2_d", "//"]
)  # fmt: skip


@pytest.fixture(scope="module")
def context() -> Iterator[Context]:
    found = Context()
    found.init(domain_id=int(os.environ["ROS_DOMAIN_ID"]))
    standing = Node("standing", context=found)
    yield found
    standing.destroy_node()
    found.shutdown()


@given(st.dictionaries(NAMES, VALUES, max_size=3))
@example({"weights": "a\nb", "overlay_alpha": float("nan")})
@example({"frame_buffer": True})
@settings(max_examples=cases(30))
def test_parameter_files(context: Context, tmp_path_factory: object, wanted: dict) -> None:
    path = tmp_path_factory.mktemp("files") / "parameters.yaml"  # type: ignore[attr-defined]
    path.write_text(yaml.safe_dump({"/**": {"ros__parameters": wanted}}, allow_unicode=True))
    node = None
    try:
        arguments = ["--ros-args", "--params-file", str(path)]
        node = Node("fuzzed", context=context, cli_args=arguments, enable_rosout=False,
                    start_parameter_services=False)  # fmt: skip
        found = parameters.declare(node)
    except RuntimeError as error:  # of rcl's parser
        assert 0 < len(first_line(error)) < 300
    except (ValueError, ParameterException) as error:
        said = str(error)
        assert any(name in said for name in wanted), said
    else:
        assert 0 <= found.overlay_alpha <= 1 and 1 <= found.frame_buffer <= 1000
        for name in wanted.keys() & vars(found).keys():
            assert type(getattr(found, name)) is type(getattr(Parameters(), name))
    finally:
        if node is not None:
            node.destroy_node()
        path.unlink()
        path.parent.rmdir()


@given(some.files(st.just(b"/**:\n  ros__parameters:\n    frame_buffer: 20\n    weights: demo\n")))
@settings(max_examples=cases(30))
def test_damaged_parameter_files(tmp_path_factory: object, data: bytes) -> None:
    path = tmp_path_factory.mktemp("files") / "parameters.yaml"  # type: ignore[attr-defined]
    path.write_bytes(data)
    context = Context()
    try:
        context.init(["--ros-args", "--params-file", str(path)],
                     domain_id=int(os.environ["ROS_DOMAIN_ID"]))  # fmt: skip
    except RuntimeError as error:
        assert "\n" not in first_line(error)
    else:
        context.shutdown()
    path.unlink()
    path.parent.rmdir()


@given(st.text(max_size=40) | st.lists(st.tuples(KEYS, PATHS)).map(
    lambda pairs: " ".join(f"{key}={path}" for key, path in pairs)), TYPES | some.text)  # fmt: skip
@example("items=detections x=bbox.center.position.x y=id width=bbox height=bbox.size_y",
         "vision_msgs/msg/Detection2DArray")  # fmt: skip
@settings(max_examples=cases(100))
def test_layouts(fields: str, name: str) -> None:
    try:
        kind, read = reader(name, fields)
    except ValueError as error:
        said = str(error)
        assert said.startswith("detections_") and "\n" not in said and len(said) < 500, said
        return
    assert isinstance(read(kind()), Detection2DArray)


@given(some.detection_arrays())
def test_other_messages_by_layout(message: Detection2DArray) -> None:
    """Whatever stands in the fields, reading them by a layout does not fail."""
    layout = parse_layout(
        "items=detections id=id x=bbox.center.position.x y=bbox.center.position.y "
        "width=bbox.size_x height=bbox.size_y theta=bbox.center.theta"
    )
    found = standard(message, layout)
    assert [d.id for d in found.detections] == [d.id for d in message.detections]
    assert all(isinstance(detection, Detection2D) for detection in found.detections)
