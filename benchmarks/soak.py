"""The node for a long time: does its memory grow, does it leak threads or files, get slower?

    python3 tools/environment.py run -- python3 benchmarks/soak.py --minutes 60

A camera and a detector publish in this process, the node runs in its own, over real DDS, with the
demo weights. Of the scene's objects some are detected and some are not, others every second; one is
followed for a while; now and then somebody prompts, clears, or listens to an overlay. Who listens
is a third process, so that a stand-still of DDS at a subscription (docs/reliability.md) ends only
that one: it is killed, which is said, and another one takes its place.
Exit status 1 if something grew by more than is allowed.
"""

from __future__ import annotations

import argparse
import datetime
import multiprocessing
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import process_memory
import rclpy
from mobile_sam_ros.msg import Prompt, PromptArray, SegmentArray
from node_cost import running, spin
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from std_srvs.srv import Trigger
from vision_msgs.msg import BoundingBox2D, Detection2D, Detection2DArray

from mobile_sam.benchmark import machine
from mobile_sam.scenes import MovingScene
from mobile_sam.segments import tight_box
from mobile_sam_ros.conversions import image_message, nanoseconds

MOST_GROWTH = 10.0  # MB, from the first sample to the last
MOST_SLOWER = 1.2  # p99 of the last sample by that of the first
_SIZE, _OBJECTS, _FRAMES, _SEED = (480, 640), 8, 90, 7


@dataclass
class Sample:
    """One interval: of the node's process at its end, of the latencies all of it."""

    minute: float
    megabytes: float
    threads: int
    files: int
    sent: int = 0
    milliseconds: list[float] = field(default_factory=list)

    def percentile(self, percent: float) -> float:
        """Returns a percentile of the time from an image to its segments."""
        return float(np.percentile(self.milliseconds, percent)) if self.milliseconds else np.nan

    def row(self) -> str:
        """Returns the sample as a row of the table."""
        return (
            f"| {self.minute:.1f} | {self.megabytes:.1f} | {self.threads} | {self.files} | "
            f"{self.sent} | {len(self.milliseconds)} | {self.percentile(50):.0f} | "
            f"{self.percentile(99):.0f} |"
        )


HEAD = (
    "| minute | memory, MB | threads | files | images | segmented | p50, ms | p99, ms |\n"
    "|---|---|---|---|---|---|---|---|"
)


def listen(orders: Connection) -> None:
    """A process that listens to the overlay, or not, as it is ordered, and confirms each order."""
    rclpy.init()
    node, executor = Node("listener"), SingleThreadedExecutor()
    executor.add_node(node)
    subscription: Any = None
    while True:
        if orders.poll():
            wanted = orders.recv()
            if subscription is not None:
                node.destroy_subscription(subscription)
                subscription = None
            if wanted:
                subscription = node.create_subscription(
                    Image, "/sam/overlay", lambda message: None, 1
                )
            orders.send(wanted)
        executor.spin_once(timeout_sec=0.1)


class Listener:
    """The process that listens to the overlay now and then."""

    def __init__(self) -> None:
        self._unconfirmed = False  # what it was told last
        self._start()

    def order(self, wanted: bool) -> None:
        """Has it listen, or not; a process that did not do what it was told before is replaced."""
        if self._unconfirmed and not self._orders.poll():
            print("the listener stands still: another takes its place", file=sys.stderr, flush=True)
            self.end()
            self._start()
        elif self._unconfirmed:
            self._orders.recv()
        self._orders.send(wanted)
        self._unconfirmed = True

    def end(self) -> None:
        """Ends the process, whatever it does."""
        self._process.kill()
        self._process.join()

    def _start(self) -> None:
        self._orders, theirs = multiprocessing.Pipe()
        spawning = multiprocessing.get_context("spawn")
        self._process = spawning.Process(target=listen, args=(theirs,), daemon=True)
        self._process.start()


class World(Node):
    """Camera, detector, and people who want something now and then."""

    def __init__(self, seed: int) -> None:
        super().__init__("world")
        self.listener = Listener()
        scene = MovingScene(seed, _SIZE, _OBJECTS)
        self._pictures = []
        for index in range(_FRAMES):
            frame = scene.frame(index)
            boxes = {int(i): tight_box(frame.labels == i) for i in np.unique(frame.labels) if i}
            self._pictures.append((frame.image, boxes))
        self._random = random.Random(seed)
        self._images = self.create_publisher(Image, "image", 1)
        self._detections = self.create_publisher(Detection2DArray, "detections", 1)
        self._prompts = self.create_publisher(PromptArray, "prompts", 10)
        self._clear = self.create_client(Trigger, "/sam/clear_prompts")
        self.create_subscription(SegmentArray, "/sam/segments", self._on_segments, 5)
        self._seen: set[int] = set()
        self._published: dict[int, float] = {}
        self._number = 0
        self.milliseconds: list[float] = []
        self.sent = 0

    def ready(self) -> bool:
        """Whether the node listens."""
        inputs = (self._images, self._detections, self._prompts)
        return all(publisher.get_subscription_count() for publisher in inputs)

    def tick(self, rate: float) -> None:
        """Publishes the next image and its detections."""
        stamp = time.time_ns()
        header = Header(frame_id="camera")
        header.stamp.sec, header.stamp.nanosec = divmod(stamp, 1_000_000_000)
        image, boxes = self._pictures[self._number % _FRAMES]
        if self._number % round(rate) == 0:
            self._seen = {label for label in boxes if self._random.random() < 0.6}
            self._change(self._number // round(rate), header, boxes)
        self._number += 1
        self.sent += 1
        self._published[stamp] = time.perf_counter()
        while len(self._published) > 200:  # of those that the node dropped
            del self._published[next(iter(self._published))]
        self._images.publish(image_message(image, "rgb8", header))
        found = Detection2DArray(header=header)
        for label in self._seen & boxes.keys():
            x0, y0, x1, y1 = (float(value) for value in boxes[label])
            box = BoundingBox2D(size_x=x1 - x0, size_y=y1 - y0)
            box.center.position.x, box.center.position.y = (x0 + x1) / 2, (y0 + y1) / 2
            found.detections.append(Detection2D(header=header, bbox=box, id=f"{label}"))
        self._detections.publish(found)

    def _change(self, second: int, header: Header, boxes: dict[int, Any]) -> None:
        """What happens besides, in a second."""
        label = self._random.choice(sorted(boxes))
        prompt = Prompt(id=f"wanted_{second}", box=[float(v) for v in boxes[label]])
        if second % 7 == 1:
            mode = PromptArray.TRACKED if second % 14 == 1 else PromptArray.ONCE
            self._prompts.publish(PromptArray(header=header, mode=mode, prompts=[prompt]))
        elif second % 7 == 5:
            self._clear.call_async(Trigger.Request())
        if second % 20 in (8, 16):
            self.listener.order(wanted=second % 20 == 8)

    def _on_segments(self, message: SegmentArray) -> None:
        published = self._published.pop(nanoseconds(message.header.stamp), None)
        if published is not None:
            self.milliseconds.append(1000 * (time.perf_counter() - published))


def sampled(pid: int, minute: float) -> Sample:
    """Returns what a process has now."""
    process = Path(f"/proc/{pid}")
    status = process.joinpath("status").read_text().splitlines()
    threads = next(int(line.split()[1]) for line in status if line.startswith("Threads:"))
    return Sample(
        minute, process_memory.private(pid), threads, len(list(process.joinpath("fd").iterdir()))
    )


def soak(
    minutes: float, rate: float, warm_up: float, interval: float, parameters: list[str]
) -> Iterator[Sample]:
    """Runs the node, and yields a sample every `interval` minutes, the first one at the end of the
    warm-up."""
    executor = SingleThreadedExecutor()
    world = World(_SEED)
    executor.add_node(world)
    try:
        with running(["weights:=demo", *parameters]) as pid:
            if not spin(executor, world.ready, 90.0):
                raise SystemExit("the node does not listen")
            begin, ticks = time.monotonic(), 0
            ends = [warm_up * 60]
            while ends[-1] < (warm_up + minutes) * 60 - 1:
                ends.append(ends[-1] + interval * 60)
            for end in ends:
                world.milliseconds, world.sent = [], 0
                while time.monotonic() - begin < end:
                    world.tick(rate)
                    ticks += 1
                    spin(executor, lambda: False, begin + ticks / rate - time.monotonic())
                sample = sampled(pid, end / 60 - warm_up)
                sample.sent, sample.milliseconds = world.sent, world.milliseconds
                yield sample
    finally:
        world.listener.end()
        world.destroy_node()


def grown(samples: list[Sample]) -> list[str]:
    """Returns what grew by more than is allowed, from the end of the warm-up to the end."""
    first, last = samples[0], samples[-1]
    found = []
    if last.megabytes - first.megabytes > MOST_GROWTH:
        found.append(f"memory by {last.megabytes - first.megabytes:.1f} MB")
    if last.threads > first.threads:
        found.append(f"threads by {last.threads - first.threads}")
    if last.files > first.files:
        found.append(f"files by {last.files - first.files}")
    return found


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=30.0, help="images a second")
    parser.add_argument("--warm-up", type=float, default=5.0, help="minutes before")
    parser.add_argument("--interval", type=float, default=1.0, help="minutes of a row")
    options = parser.parse_args()
    rclpy.init()
    print(f"{machine()}, weights demo, {_SIZE[1]}x{_SIZE[0]} at {options.rate:g} Hz, up to "
          f"{_OBJECTS} objects, {datetime.date.today()}\n\n{HEAD}")  # fmt: skip
    samples = []
    for sample in soak(options.minutes, options.rate, options.warm_up, options.interval, []):
        samples.append(sample)
        print(sample.row(), flush=True)
    rclpy.try_shutdown()
    found = grown(samples)
    slower = samples[-1].percentile(99) / samples[1].percentile(99)
    print(f"\np99 of the last row by that of the second: {slower:.2f}; grew: "
          f"{', '.join(found) or 'nothing'}")  # fmt: skip
    return 1 if found or slower > MOST_SLOWER else 0


if __name__ == "__main__":
    sys.exit(main())
