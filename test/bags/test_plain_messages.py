"""Messages without ROS are those that rclpy makes, field by field; with the same definitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rclpy.serialization import deserialize_message
from rosbags.typesys import Stores, get_typestore

from mobile_sam.segments import Segments
from mobile_sam.tracking import TrackedObject, TrackState
from mobile_sam_ros.bags import definitions
from mobile_sam_ros.bags.plain_messages import result_classes
from mobile_sam_ros.identity import Identity
from mobile_sam_ros.message_classes import ros_class
from mobile_sam_ros.point_cloud import Solid
from mobile_sam_ros.results import (
    LABEL_INFO_TYPE,
    TYPES,
    label_info_message,
    label_names,
    result_messages,
    segments_from_message,
)

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (48, 64, 3), np.uint8)
SEGMENTS = Segments(
    (48, 64),
    np.array([[3, 4, 10, 20], [0, 0, 0, 0]], np.float32),
    (RNG.random((16, 7)) > 0.3, np.zeros((0, 0), bool)),
    np.array([0.9, 0.1], np.float32),
    np.array([0.8, 0.0], np.float32),
    np.zeros((2, 4, 4), np.float32),
)
LOST = TrackedObject("b", TrackState.LOST, 9, 7, 0.25)
IDENTITIES = [Identity("a", "cup", 0.7), Identity("b", track=LOST)]
POINTS = RNG.random((9, 3)).astype(np.float32)
SOLIDS = [Solid(1, POINTS, RNG.integers(0, 256, (9, 3), np.uint8))]


def messages(class_of: Any) -> dict[str, Any]:
    """All outputs of an image, of some classes."""
    header = class_of("std_msgs/msg/Header")(frame_id="camera")
    header.stamp.sec, header.stamp.nanosec = 5, 7
    found = result_messages(
        TYPES, header, IMAGE, SEGMENTS, IDENTITIES, 0.5, SOLIDS, class_of=class_of
    )
    found["label_info"] = label_info_message(header, label_names(IDENTITIES), class_of)
    return found


def test_rclpy_reads_what_it_would_have_made_itself() -> None:
    classes = result_classes()
    plain, real = messages(classes), messages(ros_class)
    assert plain.keys() == real.keys() == {*TYPES, "label_info"}
    for name, message in plain.items():
        kind = ros_class(TYPES.get(name, LABEL_INFO_TYPE))
        assert deserialize_message(classes.to_bytes(message), kind) == real[name], name


@pytest.mark.parametrize("class_of", [ros_class, result_classes()], ids=["rclpy", "plain"])
def test_segments_come_back_from_their_message(class_of: Any) -> None:
    segments, identities = segments_from_message(messages(class_of)["segments"])
    assert identities == IDENTITIES
    assert segments.image_size == (48, 64)
    np.testing.assert_array_equal(segments.masks, SEGMENTS.masks)
    np.testing.assert_array_equal(segments.boxes, SEGMENTS.boxes)
    np.testing.assert_array_equal(segments.predicted_iou, SEGMENTS.predicted_iou)


def test_a_field_that_is_not_there_is_named() -> None:
    with pytest.raises(TypeError, match="std_msgs/msg/Header has no field 'seq'"):
        result_classes()("std_msgs/msg/Header")(seq=3)


def test_types_are_found_where_they_are_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "share/my_msgs/msg").mkdir(parents=True)
    (tmp_path / "share/my_msgs/msg/Box.msg").write_text("std_msgs/Header header\nfloat32[4] ltrb\n")
    store = get_typestore(Stores.LATEST)
    with pytest.raises(LookupError, match="no definition of my_msgs/msg/Box is installed"):
        definitions.add_type(store, "my_msgs/msg/Box")
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere:{tmp_path}")
    definitions.add_type(store, "my_msgs/msg/Box")
    assert [name for name, _ in store.fielddefs["my_msgs/msg/Box"][1]] == ["header", "ltrb"]


def test_not_sourced_it_finds_what_it_is_installed_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "lib/python3.11/site-packages/mobile_sam_ros/bags"
    (tmp_path / "share/some_msgs/msg").mkdir(parents=True)
    (tmp_path / "share/some_msgs/msg/A.msg").write_text("int8 a\n")
    monkeypatch.delenv("AMENT_PREFIX_PATH")
    monkeypatch.setattr(definitions, "__file__", str(folder / "definitions.py"))
    store = get_typestore(Stores.EMPTY)
    definitions.add_type(store, "some_msgs/msg/A")
    assert "some_msgs/msg/A" in store.fielddefs
