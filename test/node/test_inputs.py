"""What the node takes: the QoS of images, and which detections count."""

from __future__ import annotations

from pathlib import Path

from graph import box_detection, detections, object_box, peer, running, scene_image, stamps
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, PointCloud2


def test_only_the_chosen_classes_count(tmp_path: Path) -> None:
    with running(tmp_path / "log", stale_after=0.0, classes="'cup, thing'") as node:
        with peer(node) as graph:
            kept = graph.listen("segments")
            graph.stands()
            other = box_detection(object_box(0), "other")
            other.results[0].hypothesis.class_id = "wall"
            stamp = stamps()
            graph.images.publish(scene_image(0, stamp))
            graph.detections.publish(detections(stamp, other, box_detection(object_box(0), "mine")))
            graph.wait(lambda: kept, "segments")
            assert [segment.id for segment in kept[0].segments] == ["mine"]


def test_images_are_best_effort_unless_told_otherwise(tmp_path: Path) -> None:
    """REP 2003; a camera of either kind is heard, and of a stream enough arrives."""
    with running(tmp_path / "log", reliable=False, stale_after=0.0) as node, peer(node) as graph:
        camera = graph.create_publisher(
            Image, "image", QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        )
        kept = graph.listen("segments")
        graph.stands(camera)
        (mine,) = graph.get_subscriptions_info_by_topic("/image")
        assert mine.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
        for _ in range(100):
            stamp = stamps()
            camera.publish(scene_image(0, stamp))
            graph.detections.publish(detections(stamp, box_detection(object_box(0))))
            graph.spin_for(0.1)
            if len(kept) >= 3:
                break
        assert len(kept) >= 3


def test_what_is_overridden_for_one_topic_is_no_others(tmp_path: Path) -> None:
    overridden = {"qos_overrides./sam/overlay.publisher.reliability": "best_effort"}
    with running(tmp_path / "log", **overridden) as node, peer(node) as graph:
        graph.stands(graph.images)  # whose reliability is overridden as well
        graph.listen("points", PointCloud2)  # for which the node listens to depth
        graph.wait(lambda: graph.count_subscribers("/depth"), "that it does")
        reliability = {
            topic: info.qos_profile.reliability
            for topic, infos in (
                ("/image", graph.get_subscriptions_info_by_topic("/image")),
                ("/depth", graph.get_subscriptions_info_by_topic("/depth")),
                ("/sam/overlay", graph.get_publishers_info_by_topic("/sam/overlay")),
                ("/sam/segments", graph.get_publishers_info_by_topic("/sam/segments")),
            )
            for info in infos
        }
    assert reliability == {
        "/image": ReliabilityPolicy.RELIABLE,
        "/depth": ReliabilityPolicy.BEST_EFFORT,
        "/sam/overlay": ReliabilityPolicy.BEST_EFFORT,
        "/sam/segments": ReliabilityPolicy.RELIABLE,
    }
