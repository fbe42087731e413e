"""Listens to depth and calibration, but only while somebody wants what is made of them."""

from __future__ import annotations

from rclpy.node import Node
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, Image

from mobile_sam_ros.depth import DepthFrame
from mobile_sam_ros.frames import FrameRing
from mobile_sam_ros.qos import sensor_data


class DepthInput:
    """The topics `depth` and `camera_info` of a node."""

    def __init__(self, node: Node, capacity: int) -> None:
        """Listens to nothing yet; keeps the last `capacity` depth images."""
        self._node = node
        self._depths: FrameRing[DepthFrame] = FrameRing(capacity)
        self._camera_info: CameraInfo | None = None
        self._subscriptions: list[Subscription] = []

    def listen(self, wanted: bool) -> None:
        """Listens from now on, or does no more and keeps nothing."""
        if wanted == bool(self._subscriptions):
            return
        if not wanted:
            for subscription in self._subscriptions:
                self._node.destroy_subscription(subscription)
            self._subscriptions = []
            self._depths.clear()
            self._camera_info = None
            return
        for kind, name, callback in (
            (Image, "depth", self._on_depth),
            (CameraInfo, "camera_info", self._on_camera_info),
        ):
            options = QoSOverridingOptions.with_default_policies()
            self._subscriptions.append(
                self._node.create_subscription(
                    kind, name, callback, sensor_data(), qos_overriding_options=options
                )
            )

    def find(self, stamp: int, slop: int) -> tuple[Image, CameraInfo] | None:
        """Returns depth and calibration for the image of a stamp, at most `slop` nanoseconds away,
        or None where one is missing. Any thread may ask."""
        found = self._depths.find(stamp, slop)
        if found is None or self._camera_info is None:
            return None
        return found.message, self._camera_info

    def _on_depth(self, message: Image) -> None:
        self._depths.add(DepthFrame(message))

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._camera_info = message
