"""A camera, a detector and the node, to watch: ros2 launch mobile_sam_ros demo.launch.py

Runs until Ctrl-C. The demo that measures, records and ends by itself is `make demo`, or
`python3 -m mobile_sam_ros.demo.run`.
"""

from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    SetEnvironmentVariable,
)
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import (
    EnvironmentVariable,
    LaunchConfiguration,
    PathJoinSubstitution,
    PythonExpression,
)
from launch_ros.actions import Node, SetParameter
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

ARGUMENTS = {
    "video": ("", "Video file of a fixed camera, or folder of images; empty: procedural scene."),
    "rate": ("10.0", "Images a second."),
    "seed": ("5", "Which procedural scene."),
    "objects": ("4", "Objects in the procedural scene."),
    "latency": ("0.05", "Seconds that the detector takes."),
    "weights": ("demo", "Weights by name (demo, mobile_sam) or the path of a checkpoint."),
    "device": ("auto", "Device of torch, as cpu or cuda:0; auto takes a GPU if there is one."),
    "backend": ("auto", "What runs the model: auto, torch, openvino, onnx or tensorrt."),
    "precision": ("auto", "Of the image encoder: auto, fp32, bf16 or fp16."),
    "rviz": ("false", "Show images and overlays in RViz."),
}


def generate_launch_description() -> LaunchDescription:
    """Declares the arguments and starts the nodes."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    share = FindPackageShare("mobile_sam_ros")

    def typed(name: str, kind: type) -> ParameterValue:
        return ParameterValue(LaunchConfiguration(name), value_type=kind)

    camera = {
        "video": typed("video", str),
        "rate": typed("rate", float),
        "seed": typed("seed", int),
        "objects": typed("objects", int),
    }
    method = PythonExpression(["'motion' if '", LaunchConfiguration("video"), "' else 'truth'"])
    detector = {
        "method": ParameterValue(method, value_type=str),
        "latency": typed("latency", float),
    }
    sam = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(PathJoinSubstitution([share, "launch", "sam.launch.py"])),
        launch_arguments={
            name: LaunchConfiguration(name)
            for name in ("weights", "device", "backend", "precision")
        }.items(),
    )
    view = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", PathJoinSubstitution([share, "config", "demo.rviz"])],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    return LaunchDescription(
        [
            *declared,
            # Images beyond the 512 KB of Fast DDS's shared-memory segment are lost without this.
            SetEnvironmentVariable(
                "FASTDDS_BUILTIN_TRANSPORTS",
                EnvironmentVariable("FASTDDS_BUILTIN_TRANSPORTS", default_value="LARGE_DATA"),
            ),
            # And many of them are with best effort, while the model keeps all cores busy.
            SetParameter("qos_overrides./image.subscription.reliability", "reliable"),
            sam,
            *(
                Node(
                    package="mobile_sam_ros",
                    executable=name,
                    name=name,
                    parameters=[parameters],
                    output="screen",
                )
                for name, parameters in (("detector", detector), ("camera", camera))
            ),
            view,
        ]
    )
