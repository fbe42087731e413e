"""More than the node can do: four cameras, 4K images, 256 boxes an image. What it does not do, it
says; and what it does, it does in time.

    python3 tools/environment.py run -- python3 benchmarks/load.py

Cameras and detectors publish in this process, one node process serves them all, over real DDS, with
the demo weights. An age is from publishing an image to its segments being here.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from dataclasses import dataclass

import numpy as np
import process_memory
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from mobile_sam_ros.msg import SegmentArray
from node_cost import running, spin
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import BoundingBox2D, Detection2D, Detection2DArray, ObjectHypothesisWithPose

from mobile_sam.benchmark import machine
from mobile_sam.scenes import MovingScene
from mobile_sam_ros.conversions import image_message, nanoseconds
from mobile_sam_ros.diagnostics import status_values

_NAMES = ("front", "left", "rear", "right")
_DROPS = ("newer", "stale", "bad", "failed")


@dataclass(frozen=True)
class Load:
    """How many cameras of which size and rate, and boxes in each image."""

    cameras: int
    size_hw: tuple[int, int]
    rate: float
    boxes: int


LOADS = (
    Load(1, (480, 640), 30.0, 8),
    Load(1, (480, 640), 30.0, 256),
    Load(1, (2160, 3840), 10.0, 8),
    Load(4, (480, 640), 10.0, 8),
    Load(4, (2160, 3840), 2.0, 8),
    Load(4, (2160, 3840), 2.0, 256),
)


class Source(Node):
    """A camera with its detector, and what comes back."""

    def __init__(self, name: str, load: Load) -> None:
        super().__init__("source", namespace=name)
        self._image = MovingScene(7, load.size_hw, 8).frame(0).image
        height, width = load.size_hw
        chance = np.random.default_rng(5)
        self._boxes = [
            (chance.uniform(0.1, 0.9) * width, chance.uniform(0.1, 0.9) * height,
             chance.uniform(0.05, 0.3) * width, chance.uniform(0.05, 0.3) * height)
            for _ in range(load.boxes)
        ]  # fmt: skip
        self._images = self.create_publisher(Image, "image", 1)
        self._detections = self.create_publisher(Detection2DArray, "detections", 1)
        self.create_subscription(SegmentArray, "sam/segments", self._on_segments, 5)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self._published: dict[int, float] = {}
        self.ages: list[tuple[float, float]] = []  # when, and how old, seconds
        self.values: dict[str, str] = {}
        self.message = ""

    def ready(self) -> bool:
        """Whether the node listens."""
        inputs = (self._images, self._detections)
        return all(publisher.get_subscription_count() for publisher in inputs)

    def tick(self) -> None:
        """Publishes an image and its boxes."""
        stamp = time.time_ns()
        header = Header(frame_id=self.get_namespace())
        header.stamp.sec, header.stamp.nanosec = divmod(stamp, 1_000_000_000)
        found = Detection2DArray(header=header)
        for index, (x, y, width, height) in enumerate(self._boxes):
            box = BoundingBox2D(size_x=width, size_y=height)
            box.center.position.x, box.center.position.y = x, y
            score = ObjectHypothesisWithPose()
            score.hypothesis.score = 1.0 - index / 1000
            found.detections.append(
                Detection2D(header=header, bbox=box, id=f"{index}", results=[score])
            )
        self._published[stamp] = time.perf_counter()
        while len(self._published) > 500:
            del self._published[next(iter(self._published))]
        self._images.publish(image_message(self._image, "rgb8", header))
        self._detections.publish(found)

    def _on_segments(self, message: SegmentArray) -> None:
        published = self._published.pop(nanoseconds(message.header.stamp), None)
        if published is not None:
            now = time.perf_counter()
            self.ages.append((now, now - published))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        name = f"{self.get_namespace()}/sam"
        values = status_values(message, name)
        if values:
            self.values = values
            self.message = next(s.message for s in message.status if s.name.startswith(name + ":"))


def run(load: Load, seconds: float) -> str:
    """Measures one row."""
    executor = SingleThreadedExecutor()
    sources = [Source(name, load) for name in _NAMES[: load.cameras]]
    for source in sources:
        executor.add_node(source)
    # Reliable, so that what is lost is lost by the node and not on the way to it.
    names = _NAMES[: load.cameras]
    reliable = [f"qos_overrides./{n}/image.subscription.reliability:=reliable" for n in names]
    with running(["weights:=demo", *reliable], ",".join(names)) as pid:
        if not spin(executor, lambda: all(source.ready() for source in sources), 90.0):
            raise SystemExit("the node does not listen")
        begin, number, sent = time.monotonic(), 0, 0
        warm = 10.0  # compiling
        while time.monotonic() < begin + warm + seconds:
            for source in sources:
                source.tick()
            number += 1
            sent += time.monotonic() > begin + warm
            spin(executor, lambda: False, begin + number / load.rate - time.monotonic())
        end = time.perf_counter()
        memory = process_memory.private(pid)
        spin(executor, lambda: False, 1.5)
    ages = [[age for at, age in s.ages if at > end - seconds] for s in sources]
    halves = [
        np.median([age for s in sources for at, age in s.ages if low < at - end + seconds <= high])
        for low, high in ((0, seconds / 2), (seconds / 2, seconds))
    ]
    every = np.concatenate([np.array(one) for one in ages]) if any(ages) else np.array([np.nan])
    dropped = {
        name: sum(int(source.values.get(f"frames/dropped/{name}", 0)) for source in sources)
        for name in _DROPS
    }
    drops = ", ".join(f"{name} {count}" for name, count in dropped.items() if count)
    objects = sum(int(source.values.get("objects/dropped", 0)) for source in sources)
    fewest, most = min(map(len, ages)), max(map(len, ages))
    for source in sources:
        source.destroy_node()
    height, width = load.size_hw
    return (
        f"| {load.cameras} | {width}x{height} | {load.rate:g} | {load.boxes} | "
        f"{sent / seconds:.1f} | {fewest / seconds:.1f} to {most / seconds:.1f} | "
        f"{1000 * np.median(every):.0f} | {1000 * np.percentile(every, 99):.0f} | "
        f"{halves[1] / halves[0]:.2f} | {drops} | {objects} | {memory:.0f} |"
    )


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="of a row")
    options = parser.parse_args()
    rclpy.init()
    print(f"{machine()}, weights demo, `segments`, {datetime.date.today()}\n")
    print("| cameras | image | wanted, Hz | boxes | sent, Hz each | segmented, Hz each | age p50 "
          "| p99, ms | second half by first | images dropped | objects dropped | memory, MB |\n"
          "|---|---|---|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    for load in LOADS:
        print(run(load, options.seconds), flush=True)
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
