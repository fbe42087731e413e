"""Runs the node, or one for each camera: what the executable `sam_node` does."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.utilities import remove_ros_args

from mobile_sam.quoting import first_line
from mobile_sam_ros.ending import end_process, interrupt_once
from mobile_sam_ros.executor import SteadyExecutor
from mobile_sam_ros.models import Models
from mobile_sam_ros.sam_node import NAME, SamNode
from mobile_sam_ros.segmentation import Job
from mobile_sam_ros.watchdog import Watchdog
from mobile_sam_ros.worker import Worker


def make_nodes(cameras: Sequence[str]) -> list[SamNode]:
    """Makes the node, or for each camera one in a namespace of its name.

    They share one thread, one executor and one copy of the weights.
    """
    models, worker = Models(), Worker[Job]()
    if not cameras:
        return [SamNode(models, worker)]
    # Arguments of the command line would put all of them into the same namespace.
    probe = Node(NAME, start_parameter_services=False, enable_rosout=False)
    namespace = probe.get_namespace().rstrip("/")
    own = [["--ros-args", "-r", f"__ns:={namespace}/{camera}"] for camera in cameras]
    nodes = [SamNode(models, worker, arguments) for arguments in own]
    probe.destroy_node()  # not before: DDS's participant would end and begin anew
    return nodes


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Reads what is left of the command line without its ROS arguments."""
    parser = argparse.ArgumentParser(prog="sam_node")
    parser.add_argument(
        "--cameras",
        type=lambda text: [name for name in text.split(",") if name],
        default=[],
        metavar="NAME,NAME",
        help="a node for each camera, in a namespace of its name, in this one process",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the node until it is told to end, and ends the process with the exit status."""
    interrupt_once()
    nodes: list[SamNode] = []
    watchdog = Watchdog(
        lambda: min(
            (node.values.hang_timeout for node in nodes if node.values.hang_timeout), default=0.0
        )
    )
    status = 0
    try:
        options = parse(remove_ros_args(sys.argv if arguments is None else arguments)[1:])
        try:
            rclpy.init(args=arguments)
        except RuntimeError as error:  # of ROS arguments and parameter files
            raise ValueError(first_line(error)) from error
        nodes = make_nodes(options.cameras)
        executor = SteadyExecutor(nodes[0].say_failure)
        for node in nodes:
            executor.add_node(node)
        if all(node.start() for node in nodes):
            executor.spin()
        elif rclpy.ok():  # else it was told to end while it started
            status = 1
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (ValueError, rclpy.exceptions.ParameterException) as error:
        print(f"sam_node: {error}", file=sys.stderr)
        status = 1
    watchdog.stop()
    for node in nodes:
        node.close()
    end_process(nodes, status)


if __name__ == "__main__":
    main()
