"""Boxes of detectors in messages of their own: read as a layout says, refused where it is wrong."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from graph import detections, object_box, peer, running, scene_image, stamps
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D, Detection3D, Detection3DArray

from mobile_sam_ros.conversions import box_from_detection
from mobile_sam_ros.detections import LAYOUTS, message_type, parse_layout, reader, standard

YOLO_TYPE = "yolo_msgs/msg/DetectionArray"
SOLID = "vision_msgs/msg/Detection3DArray"
SOLID_FIELDS = (
    "items=detections x=bbox.center.position.x y=bbox.center.position.y "
    "width=bbox.size.x height=bbox.size.y id=id"
)


# What yolo_ros 4.6.1 (github.com/mgonzs13/yolo_ros, 2553d0a of 2026-07-12) has in its messages, as
# far as we read it.
YOLO = {
    "yolo_msgs/DetectionArray": {
        "header": "std_msgs/Header",
        "detections": "sequence<yolo_msgs/Detection>",
    },
    "yolo_msgs/Detection": {
        "class_name": "string",
        "score": "double",
        "id": "string",
        "bbox": "yolo_msgs/BoundingBox2D",
    },
    "yolo_msgs/BoundingBox2D": {"center": "yolo_msgs/Pose2D", "size": "yolo_msgs/Vector2"},
    "yolo_msgs/Pose2D": {"position": "yolo_msgs/Point2D", "theta": "double"},
    "yolo_msgs/Point2D": {"x": "double", "y": "double"},
    "yolo_msgs/Vector2": {"x": "double", "y": "double"},
}


def test_the_standard_type_is_left_as_it_is() -> None:
    _, read = reader("vision_msgs/msg/Detection2DArray", "")
    message = detections(5, Detection2D(id="it"))
    assert read(message) is message


def test_yolo_ros_is_known() -> None:
    """Its fields, as its repository has them; the package itself is on no index."""

    def point(x: float, y: float) -> SimpleNamespace:
        return SimpleNamespace(x=x, y=y)

    detection = SimpleNamespace(
        class_id=3,
        class_name="cup",
        score=0.75,
        id="17",
        bbox=SimpleNamespace(
            center=SimpleNamespace(position=point(50.0, 40.0), theta=0.0), size=point(20.0, 10.0)
        ),
    )
    header = Header(frame_id="camera")
    message = SimpleNamespace(header=header, detections=[detection])
    layout = parse_layout(LAYOUTS[YOLO_TYPE])
    found = standard(message, layout)
    (one,) = found.detections
    assert found.header == header and one.id == "17"
    assert (one.results[0].hypothesis.class_id, one.results[0].hypothesis.score) == ("cup", 0.75)
    assert box_from_detection(one.bbox, (80, 100)).tolist() == [40, 35, 60, 45]


def test_the_layout_of_yolo_ros_names_its_fields() -> None:
    layout = parse_layout(LAYOUTS[YOLO_TYPE])
    items = YOLO["yolo_msgs/DetectionArray"][layout.pop("items")]
    assert YOLO["yolo_msgs/DetectionArray"][layout.pop("header")] == "std_msgs/Header"
    assert items == "sequence<yolo_msgs/Detection>"
    kinds = {}
    for key, path in layout.items():
        kind = "yolo_msgs/Detection"
        for name in path.split("."):
            kind = YOLO[kind][name]
        kinds[key] = kind
    numbers = dict.fromkeys(("x", "y", "width", "height", "theta", "score"), "double")
    assert kinds == {"id": "string", "class": "string"} | numbers


def test_yolo_msgs_are_as_we_expect_them() -> None:
    pytest.importorskip("yolo_msgs", reason="yolo_msgs is on no index; build yolo_ros to have it")
    for kind, fields in YOLO.items():
        package, name = kind.split("/")
        there = message_type(f"{package}/msg/{name}").get_fields_and_field_types()
        assert fields.items() <= there.items(), kind


def test_yolo_ros_on_a_real_graph(tmp_path: Path) -> None:
    """An object that its tracker numbered, and one turned by a right angle."""
    yolo = pytest.importorskip(
        "yolo_msgs.msg", reason="yolo_msgs is on no index; build yolo_ros to have it"
    )
    with running(
        tmp_path / "log", stale_after=0.0, detections_type=YOLO_TYPE, min_score=0.5
    ) as node, peer(node, yolo.DetectionArray) as graph:  # fmt: skip
        kept = graph.listen("segments")
        graph.stands()
        image = scene_image(0, stamps())
        box = np.array(object_box(0), float)
        message = yolo.DetectionArray(header=image.header)
        for name, score, theta in (("17", 0.9, 0.0), ("", 0.8, np.pi / 2), ("no", 0.4, 0.0)):
            found = yolo.Detection(id=name, class_id=3, class_name="cup", score=score)
            found.bbox.center.theta = theta
            place, size = found.bbox.center.position, found.bbox.size
            place.x, place.y = ((box[:2] + box[2:]) / 2).tolist()
            sides = (box[2:] - box[:2]).tolist()
            size.x, size.y = sides[::-1] if theta else sides
            message.detections.append(found)
        graph.images.publish(image)
        graph.detections.publish(message)
        segments = graph.wait(lambda: kept, "segments")[0].segments
        assert [(s.id, s.class_id, s.score) for s in segments] == [
            ("17", "cup", pytest.approx(0.9)),
            ("detection_1", "cup", pytest.approx(0.8)),
        ]
        for segment in segments:
            roi = segment.roi
            low = np.array([roi.x_offset, roi.y_offset])
            assert np.abs(np.concatenate([low, low + (roi.width, roi.height)]) - box).max() < 15


def test_corners_do_as_well() -> None:
    layout = parse_layout("items=boxes, x_min=left, y_min=top, x_max=right, y_max=bottom")
    box = SimpleNamespace(left=40, top=35, right=60, bottom=45)
    found = standard(SimpleNamespace(header=Header(), boxes=[box]), layout)
    (one,) = found.detections
    assert box_from_detection(one.bbox, (80, 100)).tolist() == [40, 35, 60, 45]
    assert (one.id, one.results[0].hypothesis.score) == ("", 1.0)


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("Detections", "", "'Detections' is not of the form package/msg/Name"),
        ("no_msgs/msg/Boxes", "", "no_msgs/msg/Boxes is not there.*sourced"),
        ("vision_msgs/msg/Boxes", "", "vision_msgs/msg/Boxes is not there"),
        (SOLID, "", "layout of vision_msgs/msg/Detection3DArray is not known"),
        (SOLID, "items", "'items' is not key=field"),
        (SOLID, "items=detections colour=red", "'colour' is none of"),
        (SOLID, "items=detections x=a y=b width=c", "'height' is missing"),
        (SOLID, SOLID_FIELDS.replace("=detections", "=boxes"), "items=boxes: vision_msgs/msg/Det"),
        (SOLID, SOLID_FIELDS.replace("size.x", "size_x"), "width=bbox.size_x: vision_msgs/msg/"),
        (SOLID, SOLID_FIELDS.replace("=detections", "=header"), "is no list of boxes"),
        (SOLID, SOLID_FIELDS.replace("size.x", "size"), "width=bbox.size: Vector3 is no number"),
        (SOLID, SOLID_FIELDS + " score=id", "score=id: str is no number"),
        (SOLID, SOLID_FIELDS + " header=header.stamp", "header=header.stamp is no std_msgs"),
    ],
)
def test_what_does_not_fit_is_said_at_the_start(name: str, fields: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        reader(name, fields)


def test_another_type_on_a_real_graph(tmp_path: Path) -> None:
    """Its boxes are in pixels of a smaller image besides."""
    with (
        running(
            tmp_path / "log",
            stale_after=0.0,
            detections_type=SOLID,
            detections_fields=f"'{SOLID_FIELDS}'",
            detections_width=160,
            detections_height=120,
        ) as node,
        peer(node, Detection3DArray) as graph,
    ):
        kept = graph.listen("segments")
        graph.stands()
        stamp = stamps()
        box = np.array(object_box(0), float) / 2
        detection = Detection3D(id="mine")
        centre, size = detection.bbox.center.position, detection.bbox.size
        centre.x, centre.y = ((box[:2] + box[2:]) / 2).tolist()
        size.x, size.y = (box[2:] - box[:2]).tolist()
        image = scene_image(0, stamp)
        graph.images.publish(image)
        graph.detections.publish(Detection3DArray(header=image.header, detections=[detection]))
        (segment,) = graph.wait(lambda: kept, "segments")[0].segments
        roi = segment.roi
        found = np.array([roi.x_offset, roi.y_offset, roi.width, roi.height], float)
        found[2:] += found[:2]
        # Unscaled, it would be off by a hundred.
        assert segment.id == "mine" and np.abs(found - 2 * box).max() < 25
