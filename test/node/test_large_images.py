"""Images larger than what Fast DDS has room for by default, from another process to the node."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from graph import peer, running

PROFILE = Path(__file__).resolve().parents[2] / "config/fastdds_large_images.xml"
IMAGES = 20
CAMERA = f"""
import sys, time
import numpy as np, rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from mobile_sam_ros.conversions import image_message

rclpy.init()
node = rclpy.create_node("camera")
publisher = node.create_publisher(Image, "image", qos_profile_sensor_data)
message = image_message(np.zeros((1080, 1920, 3), np.uint8), "rgb8", Header())
while not publisher.get_subscription_count():
    time.sleep(0.05)
time.sleep(1.0)  # the node's end of the connection
for _ in range({IMAGES}):
    publisher.publish(message)
    time.sleep(0.1)
sys.stdin.read()
"""


def test_with_our_profile_a_camera_gets_its_images_through(tmp_path: Path) -> None:
    """Best effort, as cameras and the node are: without the profile few or none of them come."""
    with running(tmp_path / "log", reliable=False) as node, peer(node) as graph:
        environ = {k: v for k, v in os.environ.items() if k != "FASTDDS_BUILTIN_TRANSPORTS"}
        environ |= {
            "ROS_DOMAIN_ID": str(node.domain),
            "FASTDDS_DEFAULT_PROFILES_FILE": str(PROFILE),
            "FASTRTPS_DEFAULT_PROFILES_FILE": str(PROFILE),  # Fast DDS 2's name for it
        }
        with subprocess.Popen(
            [sys.executable, "-c", CAMERA], env=environ, stdin=subprocess.PIPE
        ) as camera:
            graph.wait(
                lambda: graph.number("frames/received") >= 0.9 * IMAGES, f"most of {IMAGES} images"
            )
            assert camera.stdin is not None
            camera.stdin.close()
