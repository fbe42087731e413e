"""The demo's own eyes: a node that sees who is there, and which frames went in and came out."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo
from vision_msgs.msg import Detection2DArray

from mobile_sam_ros.conversions import nanoseconds
from mobile_sam_ros.demo.nodes import QOS

SAM, DETECTOR, RECORDER = "sam", "detector", "recorder"


class Monitor(Node):
    """Counts frames by the small messages that go with them."""

    def __init__(self) -> None:
        super().__init__("demo")
        self.frames_in = 0
        self.frames_detected = 0
        self.frames_out = 0
        self.reports = 0  # the SAM node's diagnostics
        self.last_event = monotonic()
        self._newest_in = self._newest_detected = self._newest_with_objects = 0
        self._newest_out = 0
        self.create_subscription(CameraInfo, "camera_info", self._on_info, QOS)
        self.create_subscription(Detection2DArray, "detections", self._on_detections, QOS)
        self.create_subscription(Detection2DArray, f"{SAM}/detections", self._on_result, QOS)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, QOS)

    def _on_info(self, message: CameraInfo) -> None:
        self.last_event = monotonic()
        self.frames_in += 1
        self._newest_in = nanoseconds(message.header.stamp)

    def _on_detections(self, message: Detection2DArray) -> None:
        self.last_event = monotonic()
        self.frames_detected += 1
        self._newest_detected = nanoseconds(message.header.stamp)
        if message.detections:
            self._newest_with_objects = self._newest_detected

    def _on_result(self, message: Detection2DArray) -> None:
        self.last_event = monotonic()
        self.frames_out += 1
        self._newest_out = nanoseconds(message.header.stamp)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.reports += 1

    def drained(self) -> bool:
        """Returns whether all that went in so far has come out, or will not come out any more."""
        detected = self._newest_detected == self._newest_in
        return detected and self._newest_out >= self._newest_with_objects

    def missing(self, detector_input: str) -> list[str]:
        """Returns what is not there yet of the graph, the camera left aside.

        Args:
            detector_input: topic that the detector listens to.
        """
        speakers: dict[str, set[str]] = {}
        listeners: dict[str, set[str]] = {}
        for topic, _ in self.get_topic_names_and_types():
            speakers[topic] = _names(self.get_publishers_info_by_topic(topic))
            listeners[topic] = _names(self.get_subscriptions_info_by_topic(topic))
        wanted = [
            (SAM, speakers, f"/{SAM}/segments"),
            (SAM, listeners, "/image"),
            (SAM, listeners, "/detections"),
            (DETECTOR, speakers, "/detections"),
            (DETECTOR, listeners, detector_input),
        ]
        wanted += [
            (RECORDER, listeners, topic)
            for topic, names in speakers.items()
            if names & {SAM, DETECTOR}
        ]
        return [
            f"{node} on {topic}"
            for node, where, topic in wanted
            if node not in where.get(topic, ())
        ]


def _names(endpoints: Sequence[object]) -> set[str]:
    return {endpoint.node_name for endpoint in endpoints}  # type: ignore[attr-defined]
