"""The node `recorder`: writes every topic of the graph into a rosbag2 bag (MCAP).

As `ros2 bag record --all` does, for machines that do not have it. Messages are written as they
came over the wire, with the time of their arrival.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import time_ns
from typing import TYPE_CHECKING, Any

import rclpy
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.subscription import Subscription
from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer, WriterError
from rosbags.typesys import Stores, get_typestore

from mobile_sam_ros.bags.definitions import add_type
from mobile_sam_ros.demo.nodes import DemoNode
from mobile_sam_ros.message_classes import ros_class

if TYPE_CHECKING:
    from rclpy.topic_endpoint_info import TopicEndpointInfo  # rclpy.endpoint_info from Lyrical on

_DEPTH = 100  # messages of a topic that may wait while the disk is busy
_DISCOVERY_SECONDS = 0.1
# Whether a callback that takes two arguments gets the message's information; Humble's gets none.
_TELLS_ARRIVAL = hasattr(Subscription, "CallbackType")


def matching_qos(publishers: Sequence[TopicEndpointInfo]) -> QoSProfile:
    """Returns a profile by which everything of these publishers is heard."""
    profiles = [publisher.qos_profile for publisher in publishers]
    reliable = all(profile.reliability == ReliabilityPolicy.RELIABLE for profile in profiles)
    kept = all(profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for profile in profiles)
    return QoSProfile(
        depth=_DEPTH,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if kept else DurabilityPolicy.VOLATILE,
    )


def offered_qos(profile: QoSProfile) -> Qos:
    """Returns a publisher's profile as it is noted in a bag, for those who play it."""

    def time(duration: Duration) -> QosTime:
        return QosTime(*divmod(duration.nanoseconds, 1_000_000_000))

    return Qos(
        QosHistory[profile.history.name],
        profile.depth,
        QosReliability[profile.reliability.name],
        QosDurability[profile.durability.name],
        time(profile.deadline),
        time(profile.lifespan),
        QosLiveliness[profile.liveliness.name],
        time(profile.liveliness_lease_duration),
        profile.avoid_ros_namespace_conventions,
    )


class RecorderNode(DemoNode):
    """Subscribes to whatever is published and writes it down.

    failure: why nothing more can be written, as on a full disk; None: it can.
    """

    def __init__(self) -> None:
        super().__init__("recorder")
        self.failure: OSError | None = None
        bag = self.parameter("bag", "bag", "Folder of the bag; it must not exist yet.")
        self._written = 0
        self._store = get_typestore(Stores.EMPTY)
        self._known: set[tuple[str, str]] = set()
        self._writer = Writer(
            Path(bag), version=Writer.VERSION_LATEST, storage_plugin=StoragePlugin.MCAP
        )
        # In chunks, by MCAP itself: labels and masks shrink to next to nothing.
        self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._writer.open()
        self._discover()
        self._discovery = self.create_timer(_DISCOVERY_SECONDS, self._discover)

    def _discover(self) -> None:
        for topic, types in self.get_topic_names_and_types():
            publishers = self.get_publishers_info_by_topic(topic)
            for name in types:
                if publishers and (topic, name) not in self._known:
                    self._known.add((topic, name))
                    self._record(topic, name, publishers)

    def _record(self, topic: str, name: str, publishers: Sequence[TopicEndpointInfo]) -> None:
        try:
            add_type(self._store, name)
            message_type = ros_class(name)
        except (ImportError, AttributeError, LookupError) as error:
            self.get_logger().warning(f"{topic} is not recorded: {name} is not known: {error}")
            return
        connection = self._writer.add_connection(
            topic,
            name,
            typestore=self._store,
            offered_qos_profiles=[offered_qos(publisher.qos_profile) for publisher in publishers],
        )

        def write(data: bytes, info: dict[str, Any]) -> None:
            self._write(connection, data, info["received_timestamp"])

        def write_now(data: bytes) -> None:
            self._write(connection, data, time_ns())

        callback = write if _TELLS_ARRIVAL else write_now
        self.create_subscription(message_type, topic, callback, matching_qos(publishers), raw=True)

    def _write(self, connection: Connection, data: bytes, received: int) -> None:
        if self.failure is not None:
            return
        try:
            self._writer.write(connection, received, data)
            self._written += 1
        except OSError as error:
            self.failure = error
            self.done.set_result(None)

    def close(self, executor: SingleThreadedExecutor) -> None:
        """Writes what has arrived and completes the bag.

        Raises:
            OSError: it cannot be completed; `mcap recover` finds what was written until then.
        """
        self._discovery.cancel()
        before = -1
        while before < self._written:
            before = self._written
            executor.spin_once(timeout_sec=0.2)
        try:
            if self.failure is not None:
                raise self.failure
            self._writer.close()
        except OSError:
            with suppress(OSError):  # of what its buffer still has
                self._writer.abort()
            raise


def main(arguments: Sequence[str] | None = None) -> int:
    """Records until told to end; returns the exit status."""
    # Not rclpy's handlers: they end the executor at once, and with it what is still to be written.
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = RecorderNode()
    except (OSError, WriterError) as error:
        print(f"recorder: {error}", file=sys.stderr)
        return 1
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: node.done.set_result(None))
    while not node.done.done():
        executor.spin_once(timeout_sec=0.2)
    try:
        node.close(executor)
    except OSError as error:
        print(f"recorder: the bag is not complete (mcap recover): {error}", file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
