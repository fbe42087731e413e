"""The node `detector`: boxes on `detections`, with the stamp of the image they were found in.

`motion` finds what moves on `image`, for a fixed camera; `truth` takes the boxes from
`truth/labels` of the demo camera, and the labels as ids. Either publishes for each image, also
where there is nothing, and as late as it is told to: real detectors take their time.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

from mobile_sam_ros.conversions import bounding_box_message, rgb_from_image
from mobile_sam_ros.demo.boxes import MotionDetector, label_boxes, labels_from_image
from mobile_sam_ros.demo.nodes import QOS, DemoNode, run_node


def detection(
    header: Header, box: NDArray[np.float32], class_id: str, score: float, name: str = ""
) -> Detection2D:
    """Returns a half-open box, float32 (4,), as a detection with the id `name`."""
    hypothesis = ObjectHypothesisWithPose()
    hypothesis.hypothesis.class_id = class_id
    hypothesis.hypothesis.score = score
    return Detection2D(header=header, results=[hypothesis], bbox=bounding_box_message(box), id=name)


class DetectorNode(DemoNode):
    """Publishes boxes for the images that come."""

    def __init__(self) -> None:
        super().__init__("detector")
        method = self.parameter("method", "motion", "motion, or truth for the demo camera's scene.")
        self._min_area = self.parameter("min_area", 150, "Least size of an object, pixels.")
        self._latency = self.parameter("latency", 0.05, "Seconds to hold the results back.")
        find = {"motion": self._in_motion, "truth": self._in_truth}.get(method)
        if find is None:
            raise ValueError(f"parameter method: {method!r} is neither motion nor truth")
        self._find = find
        self._motion = MotionDetector(self._min_area)
        self._publisher = self.create_publisher(Detection2DArray, "detections", QOS)
        topic = "image" if method == "motion" else "truth/labels"
        self.start_when_heard(
            [self._publisher],
            lambda: self.create_subscription(Image, topic, self._on_image, QOS),
        )

    def _in_motion(self, message: Image) -> Iterable[Detection2D]:
        boxes, scores = self._motion.find(rgb_from_image(message))
        for box, score in zip(boxes, scores, strict=True):
            yield detection(message.header, box, "moving", float(score))

    def _in_truth(self, message: Image) -> Iterable[Detection2D]:
        for label, box in label_boxes(labels_from_image(message), self._min_area).items():
            yield detection(message.header, box, "object", 1.0, str(label))

    def _on_image(self, message: Image) -> None:
        found = Detection2DArray(header=message.header, detections=list(self._find(message)))
        if self._latency <= 0:
            self._publisher.publish(found)
            return

        def publish() -> None:
            self.destroy_timer(timer)
            self._publisher.publish(found)

        timer = self.create_timer(self._latency, publish)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the node until it is told to end; returns the exit status."""
    cv2.setNumThreads(1)  # what there are of cores is for the model
    try:
        return run_node(DetectorNode, arguments)
    except ValueError as error:
        print(f"detector: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
