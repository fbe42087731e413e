"""Several cameras in one process: each with its own topics, none at the expense of another."""

from __future__ import annotations

from pathlib import Path

from graph import (
    RELIABLE,
    box_detection,
    detections,
    object_box,
    peer,
    running,
    scene_image,
    stamps,
)
from mobile_sam_ros.msg import SegmentArray
from rclpy.publisher import Publisher
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

CAMERAS = ("front", "left", "rear", "right")
IMAGES = 60


def test_four_cameras_are_served_alike(tmp_path: Path) -> None:
    with running(tmp_path / "log", cameras=CAMERAS, stale_after=0.0) as node, peer(node) as graph:
        kept: dict[str, list[SegmentArray]] = {}
        publishers: dict[str, tuple[Publisher, Publisher]] = {}
        for camera in CAMERAS:
            kept[camera] = graph.listen(f"/{camera}/sam/segments", SegmentArray)
            publishers[camera] = (
                graph.create_publisher(Image, f"/{camera}/image", RELIABLE),
                graph.create_publisher(Detection2DArray, f"/{camera}/detections", RELIABLE),
            )
        graph.stands(*(publisher for pair in publishers.values() for publisher in pair))
        sent: dict[str, set[int]] = {camera: set() for camera in CAMERAS}
        for number in range(IMAGES):
            for camera, (images, boxes) in publishers.items():
                stamp = stamps()
                sent[camera].add(stamp)
                images.publish(scene_image(0, stamp, camera))
                found = box_detection(object_box(0), f"{number}")
                boxes.publish(detections(stamp, found, frame_id=camera))
            graph.spin_for(0.05)
        graph.wait(lambda: all(kept.values()), "segments of every camera")
        graph.spin_for(1.0)
        for camera, messages in kept.items():
            for message in messages:
                stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
                assert message.header.frame_id == camera and stamp in sent[camera]
                assert message.segments[0].area > 100
        counts = [len(messages) for messages in kept.values()]
        assert max(counts) - min(counts) <= 2 + max(counts) // 4, counts


def test_cameras_lie_in_the_given_namespace(tmp_path: Path) -> None:
    with running(
        tmp_path / "log", {"__ns": "/robot"}, cameras=("front", "rear"), stale_after=0.0
    ) as node, peer(node) as graph:  # fmt: skip
        for camera in ("front", "rear"):
            name = f"/robot/{camera}/sam/segments"
            graph.wait(lambda n=name: graph.count_publishers(n), f"a publisher on {name}")
            name = f"/robot/{camera}/image"
            graph.wait(lambda n=name: graph.count_subscribers(n), f"a subscription to {name}")
        assert not graph.count_subscribers("/robot/image")
