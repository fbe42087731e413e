"""What the launch files take from the package, against the node as it runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from graph import Peer, peer, running
from sensor_msgs.msg import PointCloud2

from mobile_sam_ros import launching
from mobile_sam_ros.launching import TOPICS, Place
from mobile_sam_ros.parameters import Parameters

LAYOUT = Path(__file__).resolve().parents[2] / "config/sam.rviz"
DISPLAYS = {
    "rviz_default_plugins/Image": "sensor_msgs/msg/Image",
    "rviz_default_plugins/MarkerArray": "visualization_msgs/msg/MarkerArray",
    "rviz_default_plugins/PointCloud2": "sensor_msgs/msg/PointCloud2",
}
NOT_RECORDED = {"/parameter_events", "/rosout"}  # each node has them


def test_each_parameter_is_an_argument() -> None:
    found = launching.arguments()
    assert set(found) == {*Parameters.__dataclass_fields__, "use_sim_time"}
    assert found["overlay_alpha"].kind is float and found["max_objects"].kind is int
    assert found["track_clicks"].kind is bool and found["classes"].kind is str
    assert found["image_transport"].choices == (launching.FROM_FILE, "raw", "compressed")
    assert not set(found) & set(TOPICS)


def test_launch_files_load_no_model() -> None:
    """The process that they are read in stays as long as the node."""
    script = "import mobile_sam_ros.launching, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    ("namespace", "name", "cameras", "wanted"),
    [
        ("", "sam", "", [("/", "/sam/")]),
        ("/", "eye", "", [("/", "/eye/")]),
        ("robot", "sam", "", [("/robot", "/robot/sam/")]),
        ("/robot/", "sam", "", [("/robot", "/robot/sam/")]),
        ("", "sam", "front,rear", [("/front", "/front/sam/"), ("/rear", "/rear/sam/")]),
        ("a/b", "sam", "front", [("/a/b/front", "/a/b/front/sam/")]),
    ],
)
def test_where_nodes_are(
    namespace: str, name: str, cameras: str, wanted: list[tuple[str, str]]
) -> None:
    found = launching.places(namespace, name, cameras)
    assert [(place.namespace, place.private) for place in found] == wanted


def topics_of(graph: Peer, place: Place) -> dict[str, str]:
    """What the node at a place listens to and publishes: topics and their types."""
    there = (place.name, place.namespace)
    pairs = graph.get_publisher_names_and_types_by_node(*there)
    pairs += graph.get_subscriber_names_and_types_by_node(*there)
    return {name: types[0] for name, types in pairs}


@pytest.mark.parametrize("cameras", [(), ("front", "rear")])
def test_bag_and_layout_have_the_topics_of_the_node(tmp_path: Path, cameras: Any) -> None:
    """In a namespace, under another name, and with another topic for the images."""
    remaps = {"__ns": "/robot", "__node": "eye", "image": "colour"}
    given = {name: name for name in TOPICS} | {"image": "colour"}
    places = launching.places("robot", "eye", ",".join(cameras))
    record = re.compile(launching.recorded(places, given, compressed=False)).search
    layout = yaml.safe_load(LAYOUT.read_text())
    with running(tmp_path / "log", remaps, cameras=cameras) as node, peer(node) as graph:
        for place in places:
            image = f"{place.namespace}/colour"
            # With somebody who wants the points, depth is listened to as well.
            graph.listen(f"{place.private}points", PointCloud2)
            depth = f"{place.namespace}/depth"
            graph.wait(lambda d=depth: graph.count_subscribers(d), "a subscription to depth")
            topics = topics_of(graph, place)
            assert {image, f"{image}_mouse_left", f"{place.private}markers"} <= topics.keys()
            missing = {name for name in topics if not record(name)}
            assert missing == NOT_RECORDED | {f"{place.private}overlay"}

            remapped = dict(launching.layout_remappings(layout, place, "colour"))
            shown = {
                remapped[display["Topic"]["Value"]]: DISPLAYS[display["Class"]]
                for display in layout["Visualization Manager"]["Displays"]
                if "Topic" in display
            }
            assert {
                image,
                *(place.private + n for n in ("overlay", "labels", "points", "markers")),
            } == (shown.keys())
            assert shown.items() <= topics.items()
    for other in ("/sam/mask", "/eye/mask", "/colour", "/robot/colour/compressed", "/robot/eyes/x"):
        assert not record(other)
    compressed = re.compile(launching.recorded(places, given, compressed=True)).search
    assert compressed(f"{image}/compressed") and not compressed(image)
    assert all(record(name) for name in ("/tf", "/tf_static", "/diagnostics"))
