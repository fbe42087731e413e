"""What is published for a segmented image: only what somebody listens to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from std_msgs.msg import Header
from vision_msgs.msg import LabelInfo

import mobile_sam
from mobile_sam_ros.identity import Identity
from mobile_sam_ros.markers import markers_message
from mobile_sam_ros.message_classes import ros_class
from mobile_sam_ros.point_cloud import Solid
from mobile_sam_ros.qos import reliable
from mobile_sam_ros.results import (
    LABEL_INFO,
    TYPES,
    label_info_message,
    label_names,
    result_messages,
)
from mobile_sam_ros.results import THREE_D as RESULTS_3D

_TYPES = TYPES | {"markers": "visualization_msgs/msg/MarkerArray"}
THREE_D = RESULTS_3D | {"markers"}
_DEPTH = 2
# Who comes later has to know as well what the labels mean.
_LATCHED = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)


class Outputs:
    """The node's publishers of results."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._publishers: dict[str, Publisher] = {
            name: node.create_publisher(
                ros_class(kind),
                f"~/{name}",
                reliable(_DEPTH),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
            for name, kind in _TYPES.items()
        }
        self._label_info = node.create_publisher(LabelInfo, f"~/{LABEL_INFO}", _LATCHED)
        self._names: list[str] | None = None  # what was said last

    def wanted(self) -> set[str]:
        """Returns the names of the outputs that have a subscriber."""
        return {
            name
            for name, publisher in self._publishers.items()
            if publisher.get_subscription_count()
        }

    def destroy(self) -> None:
        """Takes the publishers away."""
        for publisher in (*self._publishers.values(), self._label_info):
            self._node.destroy_publisher(publisher)

    def publish(
        self,
        wanted: set[str],
        header: Header,
        image: NDArray[np.uint8],
        segments: mobile_sam.Segments,
        identities: Sequence[Identity],
        alpha: float,
        objects: Sequence[Solid] | None = None,
    ) -> None:
        """Publishes the outputs named in `wanted`, as `wanted()` returned it; the other arguments
        are those of `result_messages`."""
        messages = result_messages(wanted, header, image, segments, identities, alpha, objects)
        if objects is not None and "markers" in wanted:
            messages["markers"] = markers_message(header, objects, identities)
        # Before the labels that it explains.
        names = label_names(identities)
        if names != self._names:
            self._names = names
            self._label_info.publish(label_info_message(header, names))
        for name, message in messages.items():
            self._publishers[name].publish(message)
