"""What the demo's nodes have in common: parameters with descriptions, and a life with an end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

import rclpy
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.task import Future

from mobile_sam_ros.ending import end_process, interrupt_once

# Reliable, so that subscribers of either kind match (REP 2003); some room, as nothing of the
# demo may be lost on its way to the recorder.
QOS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=10, reliability=ReliabilityPolicy.RELIABLE)

_MATCHING_SECONDS = 0.02


class DemoNode(Node):
    """A node that ends when its `done` is set, or when it is told to."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.done: Future = Future()

    def parameter(self, name: str, default: Any, description: str) -> Any:
        """Declares a parameter, fixed from the start, and returns its value.

        Raises:
            rclpy.exceptions.ParameterException: the given value has another type.
        """
        descriptor = ParameterDescriptor(description=description, read_only=True)
        return self.declare_parameter(name, default, descriptor).value

    def start_when_heard(
        self, publishers: Sequence[Publisher], start: Callable[[], object]
    ) -> None:
        """Calls `start` once the publishers have as many subscribers as a parameter says.

        What is published before its subscribers are found is lost to them, however reliable.
        """
        wanted = self.parameter(
            "wait_for_subscribers", 0, "Subscribers of all topics in sum to wait for at the start."
        )

        def check() -> None:
            if sum(publisher.get_subscription_count() for publisher in publishers) >= wanted:
                self.destroy_timer(timer)
                start()

        timer = self.create_timer(_MATCHING_SECONDS, check)


def run_node(make: Callable[[], DemoNode], arguments: Sequence[str] | None) -> NoReturn:
    """Runs a node until it is done or told to end, and ends the process."""
    interrupt_once()
    nodes = []
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.init(args=arguments)
        nodes.append(make())
        executor = SingleThreadedExecutor()
        executor.add_node(nodes[0])
        executor.spin_until_future_complete(nodes[0].done)
    end_process(nodes, status=0)
