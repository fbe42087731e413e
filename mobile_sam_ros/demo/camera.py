"""The node `camera`: images on `image` with their `camera_info`, of a procedural scene or files.

Of the procedural scene it also says what is where: on `truth/labels`, mono16, with the stamp of
the image, the object at each pixel, 0 for the background.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
from rclpy.duration import Duration
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from mobile_sam.pictures import PictureError
from mobile_sam_ros.conversions import image_message
from mobile_sam_ros.demo.nodes import QOS, DemoNode, run_node
from mobile_sam_ros.demo.sources import (
    PROCEDURAL_SIZE,
    Shot,
    file_shots,
    procedural_shots,
    repeated,
)

_LAST_WORDS = Duration(seconds=5)  # for the last frame to arrive everywhere


class CameraNode(DemoNode):
    """Publishes a source's images at a steady rate, in real time."""

    def __init__(self) -> None:
        super().__init__("camera")
        self._shots = self._open()
        rate = self.parameter("rate", 10.0, "Images a second.")
        self._frames_left = self.parameter("frames", 0, "Images until the end; 0: all there are.")
        self._endless = self._frames_left == 0
        self._frame_id = self.parameter("frame_id", "camera", "frame_id of the images.")
        self._images = self.create_publisher(Image, "image", QOS)
        self._infos = self.create_publisher(CameraInfo, "camera_info", QOS)
        self._offered = [self._images, self._infos]
        self._truth = None
        if self._is_scene:
            self._truth = self.create_publisher(Image, "truth/labels", QOS)
            self._offered.append(self._truth)
        self.start_when_heard(self._offered, lambda: self.create_timer(1 / rate, self._tick))

    def _open(self) -> Iterator[Shot]:
        video = self.parameter(
            "video", "", "Video file or folder of images; empty: a procedural scene."
        )
        seed = self.parameter("seed", 0, "Which procedural scene.")
        objects = self.parameter("objects", 4, "Objects in the procedural scene.")
        height, width = PROCEDURAL_SIZE
        width = self.parameter("width", width, "Width of the procedural scene, pixels.")
        height = self.parameter("height", height, "Height of the procedural scene, pixels.")
        loop = self.parameter("loop", False, "Begin a file or folder again when it ends.")
        self._is_scene = not video
        if video:
            return repeated(Path(video)) if loop else file_shots(Path(video))
        return procedural_shots(seed, (height, width), objects)

    def _tick(self) -> None:
        shot = next(self._shots, None)
        if shot is None:
            self._end()
            return
        image, labels = shot
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=self._frame_id)
        # The truth first: the detector works on it while the image is still on its way.
        if self._truth is not None and labels is not None:
            self._truth.publish(image_message(labels, "mono16", header))
        self._images.publish(image_message(image, "rgb8", header))
        # Without a model of distortion: a camera that nobody has calibrated.
        self._infos.publish(CameraInfo(header=header, height=image.shape[0], width=image.shape[1]))
        self._frames_left -= 1
        if self._frames_left == 0 and not self._endless:
            self._end()

    def _end(self) -> None:
        for publisher in self._offered:
            publisher.wait_for_all_acked(_LAST_WORDS)
        self.done.set_result(None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the node until its last image or until it is told to end; returns the exit status."""
    cv2.setNumThreads(1)  # what there are of cores is for the model
    try:
        return run_node(CameraNode, arguments)
    except PictureError as error:
        print(f"camera: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
