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
from rcl_interfaces.srv import GetParameters
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
    assert [f"{place.full_name}/" for place in found] == [private for _, private in wanted]


def test_a_relative_namespace_is_in_the_one_that_is_pushed() -> None:
    found = [launching.places(given, "sam", "", "/robot") for given in ("", "eyes", "/eyes")]
    assert [place.namespace for (place,) in found] == ["/robot", "/robot/eyes", "/eyes"]


# --- Parameters -----------------------------------------------------------------------------

FRONT, REAR = launching.places("robot", "sam", "front,rear")
TEXTS = ["12", "1e5", "no", "y", "~", "nan", "", " a: b # c", 'it\'s "so"\\', "é 🙂", "x " * 200]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_stays_one_in_a_file_of_parameters(text: str) -> None:
    values = {"classes": text, "min_score": 1.0, "max_objects": 7, "track_clicks": False}
    contents = yaml.safe_load(launching.parameters_file([FRONT, REAR], values))
    for place in (FRONT, REAR):
        found = launching.parameters_of(contents, place)
        assert found == values and isinstance(found["min_score"], float)


def test_nodes_take_what_the_file_says_before_what_another_one_has_for_them(tmp_path: Path) -> None:
    other, ours = tmp_path / "other.yaml", tmp_path / "ours.yaml"
    other.write_text(
        "/**: {ros__parameters: {max_objects: 2, min_score: 0.5}}\n"
        "/robot/rear/sam: {ros__parameters: {max_objects: 3, classes: cup}}\n"
    )
    texts = {"classes": "12", "weights": "1e5"}
    ours.write_text(launching.parameters_file([FRONT, REAR], {"max_objects": 7, **texts}))
    files = ["--ros-args", "--params-file", str(other), "--params-file", str(ours), "--"]
    program = ("-m", "mobile_sam_ros.run", *files)
    given: dict[str, Any] = {"program": program, "autostart": False}
    remaps = {"__ns": "/robot"}
    cameras = ("front", "rear")
    with running(tmp_path / "log", remaps, cameras=cameras, **given) as node, peer(node) as graph:
        for place in (FRONT, REAR):
            names = ["max_objects", "classes", "weights", "min_score"]
            request = GetParameters.Request(names=names)
            asked = f"{place.full_name}/get_parameters"
            found = graph.call(GetParameters, asked, request).values
            assert [value.type for value in found] == [2, 4, 4, 3]
            assert found[0].integer_value == 7 and found[3].double_value == 0.5
            assert [value.string_value for value in found[1:3]] == [*texts.values()]


FILE = """
/**: {ros__parameters: {use_sim_time: true, max_objects: 2}}
robot/front/sam: {ros__parameters: {image_transport: compressed}}
/robot/rear/sam: {ros__parameters: {use_sim_time: false}}
sam: {ros__parameters: {max_objects: 3}}
"""


@pytest.mark.parametrize(
    ("text", "front", "rear"),
    [
        (
            FILE,
            {"use_sim_time": True, "max_objects": 2, "image_transport": "compressed"},
            {"use_sim_time": False, "max_objects": 2},
        ),
        ("", {}, {}),
        ("[1, 2]", {}, {}),
        ("/**: 3", {}, {}),
        ("/**: {ros__parameters: }", {}, {}),
    ],
)
def test_what_a_file_has_for_a_node(
    tmp_path: Path, text: str, front: dict[str, Any], rear: dict[str, Any]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    contents = launching.read_parameters(str(file))
    assert launching.parameters_of(contents, FRONT) == front
    assert launching.parameters_of(contents, REAR) == rear


@pytest.mark.parametrize("contents", [None, b"a: b: c", b"\xff\xfe\xff"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, contents: bytes | None) -> None:
    file = tmp_path / "mine.yaml"
    if contents is not None:
        file.write_bytes(contents)
    with pytest.raises(ValueError, match=f"^params_file {re.escape(str(file))} cannot be read: "):
        launching.read_parameters(str(file))


# --- Topics ---------------------------------------------------------------------------------


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
    record = re.compile(launching.recorded(places, given, compressed=())).search
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
    compressed = re.compile(launching.recorded(places, given, compressed=places[-1:])).search
    assert compressed(f"{image}/compressed") and not compressed(image)
    assert all(record(name) for name in ("/tf", "/tf_static", "/diagnostics"))
