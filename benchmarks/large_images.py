"""How many large images get from one process to another, by what Fast DDS is told.

    python3 tools/environment.py run -- python3 benchmarks/large_images.py

A process publishes images in rgb8 at 15 Hz, another one counts them; nothing is done with them.
The settings are environment variables of one side or of both.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from mobile_sam.benchmark import machine
from mobile_sam_ros.conversions import image_message

PROFILE = str(Path(__file__).parents[1] / "config/fastdds_large_images.xml")
LARGE_DATA = {"FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA"}
# The second is what Fast DDS 2 goes by.
LARGE_SEGMENT = dict.fromkeys(
    ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"), PROFILE
)
# What is set, for the publisher, for the listener.
SETTINGS: tuple[tuple[str, dict[str, str], dict[str, str]], ...] = (
    ("nothing", {}, {}),
    ("LARGE_DATA on both sides", LARGE_DATA, LARGE_DATA),
    ("the profile, for the publisher", LARGE_SEGMENT, {}),
    ("the profile for the publisher, LARGE_DATA for the other", LARGE_SEGMENT, LARGE_DATA),
    ("both on both sides", LARGE_SEGMENT | LARGE_DATA, LARGE_SEGMENT | LARGE_DATA),
)
RATE_HZ = 15.0
QUIET_SECONDS = 2.0  # after which no further image is waited for


def quality(name: str) -> QoSProfile:
    """Returns the quality of service by the name of its reliability."""
    return QoSProfile(depth=5, reliability=ReliabilityPolicy[name])


def publish(count: int, size: str, reliability: str) -> None:
    """Publishes images, once somebody listens."""
    node = Node("camera")
    publisher = node.create_publisher(Image, "image", quality(reliability))
    width, height = (int(side) for side in size.split("x"))
    message = image_message(np.zeros((height, width, 3), np.uint8), "rgb8", Header())
    while not publisher.get_subscription_count():
        time.sleep(0.05)
    time.sleep(1.0)  # the other side's end of the connection
    for _ in range(count):
        publisher.publish(message)
        time.sleep(1 / RATE_HZ)
    time.sleep(QUIET_SECONDS)


def listen(count: int, reliability: str) -> None:
    """Prints how many images came until there were enough, or none came any more."""
    node = Node("listener")
    received = 0
    last = time.monotonic() + 10.0

    def take(message: Image) -> None:
        nonlocal received, last
        received += 1
        last = time.monotonic()

    node.create_subscription(Image, "image", take, quality(reliability))
    limit = time.monotonic() + 12.0 + count / RATE_HZ
    while received < count and time.monotonic() < limit:
        rclpy.spin_once(node, timeout_sec=0.1)
        if received and time.monotonic() - last > QUIET_SECONDS + count / RATE_HZ:
            break
    print(received)


def transfer(
    publisher: dict[str, str], listener: dict[str, str], count: int, size: str, kind: str
) -> int:
    """Runs two processes and returns how many images came."""
    names = {*LARGE_DATA, *LARGE_SEGMENT}
    plain = {name: value for name, value in os.environ.items() if name not in names}
    plain["ROS_DOMAIN_ID"] = str(random.randint(1, 100))
    plain["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    command = [sys.executable, __file__, "--count", str(count), "--size", size]
    command += ["--reliability", kind, "--role"]
    with subprocess.Popen(
        [*command, "listen"], env=plain | listener, stdout=subprocess.PIPE, text=True
    ) as other:
        subprocess.run([*command, "publish"], env=plain | publisher, check=True)
        output, _ = other.communicate()
    return int(output)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=150, help="images (%(default)s)")
    parser.add_argument("--size", default="1920x1080", help="of an image (%(default)s)")
    parser.add_argument("--role", choices=("publish", "listen"), help=argparse.SUPPRESS)
    parser.add_argument("--reliability", default="BEST_EFFORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        rclpy.init()
        if options.role == "publish":
            publish(options.count, options.size, options.reliability)
        else:
            listen(options.count, options.reliability)
        rclpy.try_shutdown()
        return
    print(f"{machine()}, {options.count} images of {options.size} at {RATE_HZ:g} Hz\n")
    print("| what is set | best effort | reliable |\n|---|---|---|")
    for name, publisher, listener in SETTINGS:
        counts = [
            transfer(publisher, listener, options.count, options.size, kind)
            for kind in ("BEST_EFFORT", "RELIABLE")
        ]
        print(f"| {name} | {counts[0]} | {counts[1]} |", flush=True)


if __name__ == "__main__":
    main()
