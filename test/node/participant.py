"""A process on the graph that can be killed: a camera, a detector, or one that listens.

python3 participant.py camera | detector | flood | listener [topic]
"""

from __future__ import annotations

import sys
import time

import rclpy
from graph import RELIABLE, box_detection, detections, object_box, scene_image
from rclpy.node import Node
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

RATE, FLOOD = 10.0, 1000.0
BOX = object_box(0)


def flood(node: Node) -> None:
    """A thousand detections a second: half of them for no image, half for the newest one."""
    publisher = node.create_publisher(Detection2DArray, "detections", RELIABLE)
    newest = {"stamp": 17}

    def notice(image: Image) -> None:
        newest["stamp"] = image.header.stamp.sec * 10**9 + image.header.stamp.nanosec

    node.create_subscription(Image, "image", notice, RELIABLE)
    begin, sent = time.monotonic(), 0
    while rclpy.ok():
        stamp = newest["stamp"] if sent % 2 else 17
        publisher.publish(detections(stamp, box_detection(BOX, f"{stamp}")))
        sent += 1
        rclpy.spin_once(node, timeout_sec=0)
        time.sleep(max(0.0, begin + sent / FLOOD - time.monotonic()))


def main() -> None:
    """Runs until it is killed."""
    kind = sys.argv[1]
    rclpy.init()
    node = rclpy.create_node(f"{kind}_{time.monotonic_ns()}")
    if kind == "camera":
        publisher = node.create_publisher(Image, "image", RELIABLE)
        node.create_timer(1 / RATE, lambda: publisher.publish(scene_image(0, time.time_ns())))
    elif kind == "flood":
        flood(node)
    elif kind == "detector":
        publisher = node.create_publisher(Detection2DArray, "detections", RELIABLE)

        def answer(image: Image) -> None:
            stamp = image.header.stamp.sec * 10**9 + image.header.stamp.nanosec
            publisher.publish(detections(stamp, box_detection(object_box(0), "it")))

        node.create_subscription(Image, "image", answer, RELIABLE)
    else:
        node.create_subscription(Image, sys.argv[2], lambda message: None, RELIABLE)
    rclpy.spin(node)


if __name__ == "__main__":
    main()
