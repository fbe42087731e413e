"""Starts the node `sam`: ros2 launch mobile_sam_ros sam.launch.py image:=/camera/image_raw

Each parameter of the node is an argument as well; one that is not given is left to params_file.
"""

import atexit
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import yaml
from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    OpaqueFunction,
    SetEnvironmentVariable,
)
from launch.substitutions import EnvironmentVariable
from launch.utilities.type_utils import coerce_to_type
from launch_ros.actions import Node

from launch import Action, LaunchContext, LaunchDescription
from mobile_sam_ros import launching

CONFIG = Path(__file__).parents[1] / "config"
ARGUMENTS = {
    "namespace": ("", "Namespace of the node."),
    "name": ("sam", "Name of the node."),
    "cameras": ("", "Names of cameras, as front,rear: a node for each in a namespace of its name."),
    **{name: (name, description) for name, description in launching.TOPICS.items()},
    "params_file": (
        str(CONFIG / "sam.yaml"),
        "YAML file of the node's parameters; arguments that are given come before it.",
    ),
    "log_level": ("info", "Severity from which the node logs."),
    "respawn": ("false", "Start the node again, 2 s later, whenever it ends by itself."),
    "rviz": ("false", "Show images, overlay, labels, points and 3-D boxes in RViz."),
    "fixed_frame": ("camera", "Fixed frame of RViz: the images' frame_id, or one that TF knows."),
    "panel": ("false", "Serve the web page on which objects are shown by clicking."),
    "panel_host": ("127.0.0.1", "Address that the panel listens on; 0.0.0.0: all, with a token."),
    "panel_port": ("8080", "Port of the panel; of several cameras, those from there on."),
    "record": ("false", "Record all inputs and outputs into a bag (MCAP)."),
    "bag": ("", "Folder of the bag, which must not be there yet; empty: named by the time."),
}
SECONDS_TO_RESPAWN = 2.0
SECONDS_TO_CLOSE = "30"  # for a bag, whose last chunks may still have to go to a slow disk


def typed(given: dict[str, str], name: str, kind: type) -> Any:
    """Returns an argument as a value of its kind."""
    try:
        return coerce_to_type(given[name], kind)
    except ValueError as error:
        raise ValueError(f"argument {name}: {error}") from error


def parameters(given: dict[str, str]) -> dict[str, Any]:
    """Returns the parameters that were given as arguments."""
    return {
        name: typed(given, name, argument.kind)
        for name, argument in launching.arguments().items()
        if given[name] != launching.FROM_FILE
    }


def written(text: str) -> str:
    """Returns the path of a file with a text, which is there as long as this process.

    Not shorter: a node that starts again reads it again.
    """
    with NamedTemporaryFile(
        "w", prefix="mobile_sam_", suffix=".yaml", delete=False, encoding="utf-8"
    ) as file:
        file.write(text)
    atexit.register(Path(file.name).unlink, missing_ok=True)
    return file.name


def need(package: str, for_what: str) -> None:
    """Raises RuntimeError if a package is not installed.

    Before anything runs: what launch has started when it fails itself, it may leave behind.
    """
    try:
        get_package_prefix(package)
    except PackageNotFoundError as error:
        apt = package.replace("_", "-")
        raise RuntimeError(
            f"{for_what} needs the package {package}: sudo apt-get install ros-$ROS_DISTRO-{apt}"
        ) from error


def start(context: LaunchContext) -> list[Action]:
    """Returns the node, and what is to run beside it."""
    given = context.launch_configurations
    # PushRosNamespace and SetParameter of a launch file that includes this one.
    pushed, outer = given.get("ros_namespace", ""), given.get("global_params", [])
    places = launching.places(given["namespace"], given["name"], given["cameras"], pushed)
    topics = {name: given[name] for name in launching.TOPICS}
    values = parameters(given)
    file = launching.read_parameters(given["params_file"])
    of_all = dict(item for item in outer if isinstance(item, tuple))
    known = {place: of_all | launching.parameters_of(file, place) | values for place in places}
    simulated = {place: known[place].get("use_sim_time", False) for place in places}
    transports = {place: known[place].get("image_transport", "raw") for place in places}
    files = [given["params_file"]]
    # Not as a dictionary, which launch_ros would write for the one node that it knows of.
    files += [written(launching.parameters_file(places, values))] if values else []
    actions: list[Action] = [
        Node(
            package="mobile_sam_ros",
            executable="sam_node",
            namespace=given["namespace"],
            name=given["name"],
            parameters=files,
            remappings=[*topics.items(), ("image/compressed", f"{topics['image']}/compressed")],
            arguments=["--cameras", given["cameras"]],
            ros_arguments=["--log-level", given["log_level"]],
            output="screen",
            emulate_tty=True,
            respawn=typed(given, "respawn", bool),
            respawn_delay=SECONDS_TO_RESPAWN,
        )
    ]
    if typed(given, "rviz", bool):
        need("rviz2", "rviz:=true")
        layout = CONFIG / "sam.rviz"
        contents = yaml.safe_load(layout.read_text())
        actions += [
            Node(
                package="rviz2",
                executable="rviz2",
                namespace=place.namespace,
                arguments=["-d", str(layout), "-f", given["fixed_frame"]],
                parameters=[{"use_sim_time": simulated[place]}],
                remappings=launching.layout_remappings(contents, place, topics["image"]),
            )
            for place in places
        ]
    if typed(given, "panel", bool):
        port = typed(given, "panel_port", int)
        actions += [
            Node(
                package="mobile_sam_ros",
                executable="panel",
                namespace=place.namespace,
                parameters=[
                    {
                        "host": given["panel_host"],
                        "port": port + number,
                        "image_transport": transports[place],
                        "use_sim_time": simulated[place],
                    }
                ],
                remappings=launching.panel_remappings(place, topics),
                output="screen",
                emulate_tty=True,
            )
            for number, place in enumerate(places)
        ]
    if typed(given, "record", bool):
        for package in ("ros2bag", "rosbag2_storage_mcap"):
            need(package, "record:=true")
        compressed = [place for place in places if transports[place] == "compressed"]
        command = ["ros2", "bag", "record", "--storage", "mcap"]
        command += ["--storage-preset-profile", "zstd_fast"]
        command += ["--regex", launching.recorded(places, topics, compressed)]
        command += ["--output", given["bag"]] if given["bag"] else []
        command += ["--use-sim-time"] if any(simulated.values()) else []
        actions.append(
            ExecuteProcess(cmd=command, output="screen", sigterm_timeout=SECONDS_TO_CLOSE)
        )
    return actions


def generate_launch_description() -> LaunchDescription:
    """Declares the arguments and starts the node."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    declared += [
        DeclareLaunchArgument(
            name,
            default_value=launching.FROM_FILE,
            description=argument.description,
            choices=argument.choices,
        )
        for name, argument in launching.arguments().items()
    ]
    # Images beyond the 512 KB of Fast DDS's shared-memory segment are lost without this.
    transports = SetEnvironmentVariable(
        "FASTDDS_BUILTIN_TRANSPORTS",
        EnvironmentVariable("FASTDDS_BUILTIN_TRANSPORTS", default_value="LARGE_DATA"),
    )
    return LaunchDescription([*declared, transports, OpaqueFunction(function=start)])
