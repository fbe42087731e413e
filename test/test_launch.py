"""The launch files in the real `launch` and `launch_ros`, on machines that have them.

What they take from the package is tested in test/node/test_launching.py, everywhere.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

launch = pytest.importorskip("launch", reason="launch is not on PyPI; a distribution has it")
pytest.importorskip("launch_ros", reason="launch_ros is not on PyPI; a distribution has it")

import rclpy  # noqa: E402
from ament_index_python.packages import PackageNotFoundError, get_package_prefix  # noqa: E402
from domains import free_domain  # noqa: E402
from rcl_interfaces.srv import GetParameters  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402

from mobile_sam.choices import DEFAULT_WEIGHTS  # noqa: E402
from mobile_sam_ros import launching  # noqa: E402

FILES = sorted((Path(__file__).resolve().parent.parent / "launch").glob("*.launch.py"))


def description(path: Path) -> launch.LaunchDescription:
    """What a launch file describes."""
    spec = importlib.util.spec_from_file_location(path.name.replace(".", "_"), path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate_launch_description()


@contextmanager
def launched(file: str, *arguments: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """Runs `ros2 launch` of our file of a name or of any file's path; it is gone afterwards."""
    package = [] if "/" in file else ["mobile_sam_ros"]
    process = subprocess.Popen(
        ["ros2", "launch", *package, file, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"RCUTILS_COLORIZED_OUTPUT": "0"} | environ,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)


def said_until(process: subprocess.Popen[str], text: str) -> str:
    """Reads what is said until a text comes."""
    assert process.stdout is not None
    said = ""
    while text not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    return said


def is_there(package: str) -> bool:
    try:
        get_package_prefix(package)
    except PackageNotFoundError:
        return False
    return True


# --- Arguments ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_argument_has_a_description(path: Path) -> None:
    arguments = description(path).get_launch_arguments()
    names = [argument.name for argument in arguments]
    assert set(names) > {"rviz", "record", "bag", "image", *launching.arguments()}
    assert len(set(names)) == len(names)
    for argument in arguments:
        text, _, _ = argument.description.partition(" Valid choices are: ")
        assert text.endswith("."), argument.name


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("min_score:=high", "argument min_score: .*'high'"),
        ("max_objects:=2.5", "argument max_objects: .*'2.5'"),
        ("backend:=abacus", '"backend" provided value "abacus" is not valid'),
        ("rviz:=perhaps", "argument rviz: .*'perhaps'"),
        ("params_file:=nowhere.yaml", "params_file nowhere.yaml cannot be read: .*No such file"),
        ("demo cameras:=front,rear", "argument cameras: the demo has one camera"),
        ("demo image_transport:=compressed", "argument image_transport: the demo's .* raw"),
    ],
)
def test_bad_arguments_are_named_and_nothing_starts(argument: str, said: str) -> None:
    file, _, argument = f"sam {argument}".rpartition(" ")
    with launched(f"{file.split()[-1]}.launch.py", argument) as process:
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 1 and re.search(said, output)
    assert "process started" not in output


def values(domain: int, node: str, *names: str) -> list[Any]:
    """Asks a node for parameters, as `ros2 param get` does."""
    rclpy.init(domain_id=domain)
    asking = Node("asking")
    executor = SingleThreadedExecutor()
    executor.add_node(asking)
    try:
        client = asking.create_client(GetParameters, f"{node}/get_parameters")
        assert client.wait_for_service(30)
        future = client.call_async(GetParameters.Request(names=names))
        executor.spin_until_future_complete(future, 30)
        fields = {1: "bool_value", 2: "integer_value", 3: "double_value", 4: "string_value"}
        return [getattr(value, fields[value.type]) for value in future.result().values]
    finally:
        executor.shutdown()
        asking.destroy_node()
        rclpy.try_shutdown()


def test_arguments_come_before_the_file_and_the_file_before_what_was_not_given(
    tmp_path: Path,
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "/**:\n  ros__parameters:\n    overlay_alpha: 0.25\n    min_score: 0.5\n"
        "    device: cpu\n    use_sim_time: true\n    classes: cup\n    track_clicks: true\n"
    )
    domain = free_domain()
    given = ("overlay_alpha:=1", "max_objects:=7", "classes:=12", "track_clicks:=false")
    names = ("overlay_alpha", "max_objects", "classes", "track_clicks")
    names += ("min_score", "device", "use_sim_time", "weights")
    given += (f"params_file:={file}", "autostart:=false")
    with launched("sam.launch.py", *given, ROS_DOMAIN_ID=str(domain)):
        found = values(domain, "/sam", *names)
    assert found == [1.0, 7, "12", False, 0.5, "cpu", True, DEFAULT_WEIGHTS]


# As long as a line that YAML folds.
FIELDS = (
    "items=detections id=id theta=bbox.center.theta x=bbox.center.position.x "
    "y=bbox.center.position.y width=bbox.size_x height=bbox.size_y"
)


def test_arguments_reach_the_nodes_of_all_cameras_as_they_are(tmp_path: Path) -> None:
    """Before what a file has by a node's name, too; the file that they go by does not stay."""
    file = tmp_path / "mine.yaml"
    file.write_text("/rear/sam:\n  ros__parameters:\n    max_objects: 3\n    min_score: 0.5\n")
    domain, temporary = free_domain(), tmp_path / "temporary"
    temporary.mkdir()
    given = ("max_objects:=7", "classes:=12", f"detections_fields:={FIELDS}", "autostart:=false")
    given += ("cameras:=front,rear", f"params_file:={file}")
    environ = {"ROS_DOMAIN_ID": str(domain), "TMPDIR": str(temporary)}
    with launched("sam.launch.py", *given, **environ):
        names = ("max_objects", "classes", "detections_fields", "min_score")
        assert values(domain, "/front/sam", *names) == [7, "12", FIELDS, 0.0]
        assert values(domain, "/rear/sam", *names) == [7, "12", FIELDS, 0.5]
        assert len(list(temporary.glob("*.yaml"))) == 1
    assert not list(temporary.iterdir())


def test_a_launch_file_around_ours_may_push_a_namespace_and_set_parameters(tmp_path: Path) -> None:
    outer = tmp_path / "robot.launch.py"
    outer.write_text(
        f"""
from launch import LaunchDescription
from launch.actions import GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import PushRosNamespace, SetParameter

def generate_launch_description():
    source = PythonLaunchDescriptionSource({str(FILES[-1])!r})
    given = {{"cameras": "front", "max_objects": "7", "autostart": "false"}}
    ours = IncludeLaunchDescription(source, launch_arguments=given.items())
    around = [PushRosNamespace("robot"), SetParameter("use_sim_time", True)]
    return LaunchDescription([GroupAction([*around, ours])])
"""
    )
    domain = free_domain()
    with launched(str(outer), ROS_DOMAIN_ID=str(domain)):
        assert values(domain, "/robot/front/sam", "max_objects", "use_sim_time") == [7, True]


def test_the_node_starts_and_ends_with_control_c() -> None:
    with launched("sam.launch.py", "namespace:=robot", "image:=/cam/raw", "device:=cpu") as process:
        said = said_until(process, "waiting for images on /cam/raw")
        assert "[robot.sam]" in said
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=20)
        assert time.monotonic() - begin < 5  # the node's 2 s, and launch itself
        assert "process has finished cleanly" in rest


def test_a_node_that_ends_by_itself_starts_again_and_not_after_control_c() -> None:
    given = ("respawn:=true", "autostart:=false", "device:=cpu")
    with launched("sam.launch.py", *given, ROS_DOMAIN_ID=str(free_domain())) as process:
        pids = []
        for _ in range(2):
            said = said_until(process, "process started with pid")
            pids.append(int(re.findall(r"pid \[(\d+)\]", said)[-1]))
            if len(pids) == 1:
                os.kill(pids[0], signal.SIGKILL)
        assert pids[0] != pids[1]
        time.sleep(3)  # into its work: while Python imports, it ends as any program does
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=20)
        assert "process started" not in rest


def test_the_demo_segments() -> None:
    """Its camera and detector besides, with an argument of the node's."""
    domain = free_domain()
    with launched("demo.launch.py", "max_objects:=5", ROS_DOMAIN_ID=str(domain)) as process:
        said_until(process, "first image of its size")
        assert values(domain, "/sam", "max_objects") == [5]


def test_the_demo_is_in_the_namespace_and_on_the_topics_that_are_given() -> None:
    domain = free_domain()
    given = ("namespace:=robot", "image:=rgb", "detections:=/boxes", "device:=cpu")
    with launched("demo.launch.py", *given, ROS_DOMAIN_ID=str(domain)) as process:
        said = said_until(process, "first image of its size")
        assert "[robot.sam]" in said and "waiting for images on /robot/rgb" in said
        name = "qos_overrides./robot/rgb.subscription.reliability"
        assert values(domain, "/robot/sam", name) == ["reliable"]


# --- RViz and bags --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "package"), [("rviz:=true", "rviz2"), ("record:=true", "ros2bag")]
)
def test_what_is_not_installed_is_said_and_nothing_starts(argument: str, package: str) -> None:
    if is_there(package):
        pytest.skip(f"{package} is installed")
    with launched("demo.launch.py", argument) as process:
        output, _ = process.communicate(timeout=30)
    assert f"{argument} needs the package {package}: sudo apt-get install ros-" in output
    assert "process started" not in output


SIMULATED = """
/**:
  ros__parameters:
    use_sim_time: true
/robot/front/sam:
  ros__parameters:
    image_transport: compressed
"""


def written_by(tmp_path: Path, name: str) -> list[list[str]]:
    """The arguments that stand-ins were called with."""
    return sorted(path.read_text().split("\0") for path in tmp_path.glob(f"{name}.*"))


def stand_in(tmp_path: Path, package: str, executable: Path | None = None) -> None:
    """Installs a package; its executable writes its arguments down."""
    index = tmp_path / "share/ament_index/resource_index/packages"
    index.mkdir(parents=True, exist_ok=True)
    (index / package).touch()
    if executable is not None:
        executable.parent.mkdir(parents=True, exist_ok=True)
        executable.write_text(
            f"#!{sys.executable}\nimport os, sys\n"
            f"open('{tmp_path}/{executable.name}.%d' % os.getpid(), 'w').write"
            "('\\0'.join(sys.argv[1:]))\n"
        )
        executable.chmod(0o755)


def option(command: Sequence[str], name: str) -> str:
    return command[command.index(name) + 1]


@pytest.mark.parametrize("by_file", [False, True], ids=["by arguments", "by a file"])
def test_rviz_and_the_recorder_are_started_for_the_node_as_it_is(
    tmp_path: Path, by_file: bool
) -> None:
    """Stand-ins for both: neither is on PyPI. What the names mean, test_launching.py tests."""
    ros2 = tmp_path / "bin/ros2"
    stand_in(tmp_path, "rviz2", tmp_path / "lib/rviz2/rviz2")
    stand_in(tmp_path, "ros2bag", ros2)
    stand_in(tmp_path, "rosbag2_storage_mcap")
    real = shutil.which("ros2")
    assert real is not None
    arguments = ("namespace:=robot", "cameras:=front,rear", "image:=rgb")
    arguments += ("autostart:=false", "fixed_frame:=map")
    if by_file:
        file = tmp_path / "mine.yaml"
        file.write_text(SIMULATED)
        arguments += (f"params_file:={file}",)
    else:
        arguments += ("use_sim_time:=true", "image_transport:=compressed")
    process = subprocess.Popen(
        [real, "launch", "mobile_sam_ros", "sam.launch.py", *arguments,
         "rviz:=true", "record:=true", f"bag:={tmp_path}/bag"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ
        | {
            "AMENT_PREFIX_PATH": f"{tmp_path}:{os.environ['AMENT_PREFIX_PATH']}",
            "PATH": f"{ros2.parent}:{os.environ['PATH']}",
        },
    )  # fmt: skip
    try:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            windows, bags = written_by(tmp_path, "rviz2"), written_by(tmp_path, "ros2")
            if len(windows) == 2 and bags:
                break
            time.sleep(0.1)
    finally:
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    assert len(windows) == 2 and len(bags) == 1, output
    for window, camera in zip(windows, ("front", "rear"), strict=True):
        assert option(window, "-f") == "map" and Path(option(window, "-d")).is_file()
        assert f"__ns:=/robot/{camera}" in window
        assert f"/image:=/robot/{camera}/rgb" in window
        assert f"/sam/markers:=/robot/{camera}/sam/markers" in window
    (bag,) = bags
    assert bag[:2] == ["bag", "record"] and "--use-sim-time" in bag
    assert option(bag, "--storage") == "mcap" and option(bag, "--output") == f"{tmp_path}/bag"
    places = launching.places("robot", "sam", "front,rear")
    topics = {name: name for name in launching.TOPICS} | {"image": "rgb"}
    compressed = places[:1] if by_file else places
    assert option(bag, "--regex") == launching.recorded(places, topics, compressed)


def test_the_panel_is_started_for_the_node_as_it_is(tmp_path: Path) -> None:
    file, domain = tmp_path / "mine.yaml", free_domain()
    file.write_text(SIMULATED)
    given = ("namespace:=robot", "cameras:=front,rear", f"params_file:={file}", "panel:=true")
    given += ("autostart:=false", f"panel_port:={20_000 + 2 * domain}")
    with launched("sam.launch.py", *given, ROS_DOMAIN_ID=str(domain)):
        names = ("image_transport", "use_sim_time")
        assert values(domain, "/robot/front/panel", *names) == ["compressed", True]
        assert values(domain, "/robot/rear/panel", *names) == ["raw", True]


@pytest.mark.skipif(
    not (is_there("ros2bag") and is_there("rosbag2_storage_mcap")),
    reason="rosbag2 is not on PyPI; a distribution has it",
)
def test_a_bag_of_the_demo_holds_images_and_masks(tmp_path: Path) -> None:
    from rosbags.rosbag2 import Reader

    bag = tmp_path / "bag"
    with launched(
        "demo.launch.py", "record:=true", f"bag:={bag}", ROS_DOMAIN_ID=str(free_domain())
    ) as process:
        said_until(process, "first image of its size")
        time.sleep(10)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    with Reader(bag) as reader:
        counts = {name: topic.msgcount for name, topic in reader.topics.items()}
    for name in (
        "/image",
        "/detections",
        "/sam/segments",
        "/sam/labels",
        "/sam/overlay/compressed",
    ):
        assert counts.get(name, 0) > 10, counts
    assert "/sam/overlay" not in counts and "/truth/labels" not in counts
