"""Starts the node `sam`: ros2 launch mobile_sam_ros sam.launch.py image:=/camera/image_raw"""

from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.substitutions import EnvironmentVariable, LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

ARGUMENTS = {
    "namespace": ("", "Namespace of the node."),
    "name": ("sam", "Name of the node."),
    "weights": ("demo", "Weights by name (demo, mobile_sam) or the path of a checkpoint."),
    "device": ("auto", "Device of torch, as cpu or cuda:0; auto takes a GPU if there is one."),
    "backend": ("auto", "What runs the model: auto, torch, openvino, onnx or tensorrt."),
    "precision": ("auto", "Of the image encoder: auto, fp32, bf16 or fp16."),
    "cameras": ("", "Names of cameras, as front,rear: a node for each in a namespace of its name."),
    "image": ("image", "Topic of the images."),
    "image_transport": ("raw", "raw, or compressed for images on <image>/compressed."),
    "detections": ("detections", "Topic of a detector's boxes, vision_msgs/Detection2DArray."),
    "prompts": ("prompts", "Topic of prompts, mobile_sam_ros/PromptArray."),
    "depth": ("depth", "Topic of depth registered to the images, for the 3-D outputs."),
    "camera_info": ("camera_info", "Topic of the images' calibration, for the 3-D outputs."),
    "clicked_point": ("clicked_point", "Topic of clicks, geometry_msgs/PointStamped in pixels."),
    "use_sim_time": ("false", "Take the time from /clock."),
    "autostart": ("true", "Configure and activate at start, without a lifecycle manager."),
    "log_level": ("info", "Severity from which the node logs."),
}


def generate_launch_description() -> LaunchDescription:
    """Declares the arguments and starts the node."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    declared.append(
        DeclareLaunchArgument(
            "params_file",
            default_value=PathJoinSubstitution(
                [FindPackageShare("mobile_sam_ros"), "config", "sam.yaml"]
            ),
            description="YAML file of the node's parameters; the arguments here come before it.",
        )
    )
    value = LaunchConfiguration
    text = {
        name: ParameterValue(value(name), value_type=str)
        for name in ("weights", "device", "backend", "precision", "image_transport")
    }
    flags = {
        name: ParameterValue(value(name), value_type=bool) for name in ("use_sim_time", "autostart")
    }
    node = Node(
        package="mobile_sam_ros",
        executable="sam_node",
        namespace=value("namespace"),
        name=value("name"),
        parameters=[value("params_file"), {**text, **flags}],
        remappings=[
            ("image", value("image")),
            ("image/compressed", [value("image"), "/compressed"]),
            ("detections", value("detections")),
            ("prompts", value("prompts")),
            ("depth", value("depth")),
            ("camera_info", value("camera_info")),
            ("clicked_point", value("clicked_point")),
        ],
        arguments=["--cameras", value("cameras"), "--ros-args", "--log-level", value("log_level")],
        output="screen",
        emulate_tty=True,
    )
    # Images beyond the 512 KB of Fast DDS's shared-memory segment are lost without this.
    transports = SetEnvironmentVariable(
        "FASTDDS_BUILTIN_TRANSPORTS",
        EnvironmentVariable("FASTDDS_BUILTIN_TRANSPORTS", default_value="LARGE_DATA"),
    )
    return LaunchDescription([*declared, transports, node])
