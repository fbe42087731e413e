"""A camera, a detector and the node, to watch: ros2 launch mobile_sam_ros demo.launch.py

Takes the arguments of sam.launch.py besides its own, but has one camera, whose images are raw: no
`cameras`, no `image_transport`. Runs until Ctrl-C. The demo that measures, records and ends by
itself is `make demo`, or `python3 -m mobile_sam_ros.demo.run`.
"""

from pathlib import Path

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PythonExpression
from launch_ros.actions import Node, SetParameter
from launch_ros.parameter_descriptions import ParameterValue

from launch import Action, LaunchContext, LaunchDescription
from mobile_sam_ros import launching

ARGUMENTS = {
    "video": ("", "Video file of a fixed camera, or folder of images; empty: procedural scene."),
    "rate": ("10.0", "Images a second."),
    "seed": ("5", "Which procedural scene."),
    "objects": ("4", "Objects in the procedural scene."),
    "latency": ("0.05", "Seconds that the detector takes."),
}
TOPICS = ("image", "camera_info", "detections")  # of camera and detector, with arguments


def prepare(context: LaunchContext) -> list[Action]:
    """Returns what the node needs to get all images; refuses what the camera does not do."""
    given = context.launch_configurations  # only what was given: nothing is declared yet
    if given.get("cameras"):
        raise ValueError("argument cameras: the demo has one camera")
    if given.get("image_transport") == "compressed":
        raise ValueError("argument image_transport: the demo's images are raw")
    pushed = given.get("ros_namespace", "")
    (place,) = launching.places(given.get("namespace", ""), "sam", "", pushed)
    image = place.resolved(given.get("image", "image"))
    # Of large images many are lost with best effort, while the model keeps all cores busy.
    return [SetParameter(f"qos_overrides.{image}.subscription.reliability", "reliable")]


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
            OpaqueFunction(function=prepare),
            # Before the others: it sets what DDS needs for large images, and declares arguments.
            IncludeLaunchDescription(PythonLaunchDescriptionSource(str(sam))),
            *(
                Node(
                    package="mobile_sam_ros",
                    executable=name,
                    namespace=LaunchConfiguration("namespace"),
                    name=name,
                    parameters=[parameters],
                    remappings=[(topic, LaunchConfiguration(topic)) for topic in TOPICS],
                    output="screen",
                )
                for name, parameters in (("detector", detector), ("camera", camera))
            ),
        ]
    )
