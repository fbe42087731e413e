"""A camera, a detector and the node, to watch: ros2 launch mobile_sam_ros demo.launch.py

Takes the arguments of sam.launch.py besides its own. Runs until Ctrl-C. The demo that measures,
records and ends by itself is `make demo`, or `python3 -m mobile_sam_ros.demo.run`.
"""

from pathlib import Path

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PythonExpression
from launch_ros.actions import Node, SetParameter
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchDescription

ARGUMENTS = {
    "video": ("", "Video file of a fixed camera, or folder of images; empty: procedural scene."),
    "rate": ("10.0", "Images a second."),
    "seed": ("5", "Which procedural scene."),
    "objects": ("4", "Objects in the procedural scene."),
    "latency": ("0.05", "Seconds that the detector takes."),
}


def generate_launch_description() -> LaunchDescription:
    """Declares the arguments and starts the nodes."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]

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
    sam = Path(__file__).with_name("sam.launch.py")
    return LaunchDescription(
        [
            *declared,
            # Of large images many are lost with best effort, while the model keeps all cores busy.
            SetParameter("qos_overrides./image.subscription.reliability", "reliable"),
            # First: it sets what DDS needs for large images.
            IncludeLaunchDescription(PythonLaunchDescriptionSource(str(sam))),
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
        ]
    )
