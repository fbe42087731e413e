"""What the node adds to the model: from publishing an image to its mask being there.

    python3 tools/environment.py run -- python3 benchmarks/node_cost.py

A camera and a detector publish in this process, the node runs in its own, over real DDS. First
one image at a time: the whole way less the node's own stages `encode` and `decode` is what the
node and the middleware cost. Then images at 30 Hz, whatever the model makes of them: how old
masks get when the camera is faster than the model.
"""

from __future__ import annotations

import argparse
import datetime
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("ROS_DOMAIN_ID", "87")
# Images beyond 512 KB are lost without this; the node inherits it.
os.environ.setdefault("FASTDDS_BUILTIN_TRANSPORTS", "LARGE_DATA")

import numpy as np  # noqa: E402
import process_memory  # noqa: E402
import rclpy  # noqa: E402
from against_upstream import peak_memory  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.qos import QoSProfile  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from std_msgs.msg import Header  # noqa: E402
from vision_msgs.msg import BoundingBox2D, Detection2D, Detection2DArray  # noqa: E402

from mobile_sam.benchmark import machine  # noqa: E402
from mobile_sam.scenes import MovingScene  # noqa: E402
from mobile_sam.segments import tight_box  # noqa: E402
from mobile_sam_ros.conversions import image_message, nanoseconds  # noqa: E402
from mobile_sam_ros.diagnostics import status_values  # noqa: E402

_SIZES = {"640x480": (480, 640), "1280x720": (720, 1280), "1920x1080": (1080, 1920)}
_WAIT_SECONDS = 60.0


@dataclass
class Measured:
    """Round trips of one run, in milliseconds, the node's newest diagnostics, and the most memory
    that its process ever had, in MB."""

    trips: list[float] = field(default_factory=list)
    sent: int = 0
    peak_memory: float = 0.0
    values: dict[str, str] = field(default_factory=dict)

    def percentile(self, percent: float) -> float:
        """Returns a percentile of the round trips."""
        return float(np.percentile(self.trips, percent))

    def stage(self, name: str) -> float:
        """Returns the median of one of the node's stages since its start, in milliseconds."""
        return float(self.values[f"latency_{name}_p50_ms_since_start"])


class Rig(Node):
    """Camera, detector and listener."""

    def __init__(
        self, size_hw: tuple[int, int], objects: int, output: str, namespace: str = ""
    ) -> None:
        super().__init__("rig", namespace=namespace)
        scene = MovingScene(7, size_hw, objects).frame(0)
        self._image = scene.image
        labels = scene.labels
        self._boxes = [tight_box(labels == i) for i in np.unique(labels) if i]
        self._images = self.create_publisher(Image, "image", 1)
        self._detections = self.create_publisher(Detection2DArray, "detections", 1)
        kind: Any = Image
        self._sam = f"{self.get_namespace().rstrip('/')}/sam"
        self.create_subscription(kind, f"sam/{output}", self._on_output, QoSProfile(depth=5))
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 5)
        self._published: dict[int, float] = {}
        self.measured = Measured()
        self.arrived = 0

    def ready(self) -> bool:
        """Whether the node listens."""
        inputs = (self._images, self._detections)
        return all(publisher.get_subscription_count() for publisher in inputs)

    def publish(self, stamp: int) -> None:
        """Publishes an image with its detections."""
        header = Header(frame_id="camera")
        header.stamp.sec, header.stamp.nanosec = divmod(stamp, 1_000_000_000)
        image = image_message(self._image, "rgb8", header)
        detections = Detection2DArray(header=header)
        for i, (x0, y0, x1, y1) in enumerate(np.array(self._boxes, float).tolist()):
            box = BoundingBox2D(size_x=x1 - x0, size_y=y1 - y0)
            box.center.position.x, box.center.position.y = (x0 + x1) / 2, (y0 + y1) / 2
            detections.detections.append(Detection2D(header=header, bbox=box, id=str(i)))
        self.measured.sent += 1
        self._published[stamp] = time.perf_counter()
        self._images.publish(image)
        self._detections.publish(detections)

    def _on_output(self, message: Image) -> None:
        published = self._published.pop(nanoseconds(message.header.stamp), None)
        if published is not None:
            self.measured.trips.append(1000 * (time.perf_counter() - published))
            self.arrived += 1

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        values = status_values(message, self._sam)
        if values:
            self.measured.values = values


@contextmanager
def running(arguments: list[str], cameras: str = "") -> Iterator[int]:
    """The node in a process of its own, or one for each camera; gives the process's number."""
    command = [sys.executable, "-m", "mobile_sam_ros.run", "--cameras", cameras, "--ros-args"]
    for argument in arguments:
        command += ["-p", argument]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(20)


def spin(executor: SingleThreadedExecutor, until: Callable[[], object], seconds: float) -> bool:
    """Spins until something is true; returns whether it got to be in time."""
    end = time.monotonic() + seconds
    while not until():
        if time.monotonic() > end:
            return False
        executor.spin_once(timeout_sec=0.01)
    return True


def run(
    size_hw: tuple[int, int], objects: int, output: str, parameters: list[str], rate: float,
    frames: int,
) -> Measured:  # fmt: skip
    """Measures one setting; at `rate` 0 an image is sent once the mask of the last one is there."""
    rig = Rig(size_hw, objects, output)
    executor = SingleThreadedExecutor()
    executor.add_node(rig)
    stamp = time.time_ns()
    with running(parameters) as pid:
        if not spin(executor, rig.ready, _WAIT_SECONDS):
            raise SystemExit("the node does not listen")
        # The first pictures prepare the encoder, and connections.
        while not rig.arrived >= 3:
            rig.publish(stamp)
            spin(executor, lambda n=rig.arrived: rig.arrived > n, 10.0)  # type: ignore[misc]
            stamp += 1
        rig.measured = Measured()
        begin = time.monotonic()
        for number in range(frames):
            if rate:
                spin(executor, lambda: False, begin + number / rate - time.monotonic())
                rig.publish(stamp)
            else:
                rig.publish(stamp)
                spin(executor, lambda n=rig.arrived: rig.arrived > n, 5.0)  # type: ignore[misc]
                spin(executor, lambda: False, 0.03)
            stamp += 1
        rig.measured.values = {}
        spin(executor, lambda: rig.measured.values, 5.0)
        rig.measured.peak_memory = process_memory.peak(pid)
    rig.destroy_node()
    if not rig.measured.trips:
        raise SystemExit("no mask came back")
    return rig.measured


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--objects", type=int, default=4)
    parser.add_argument("--weights", default="demo")
    parser.add_argument("--output", default="mask", choices=("mask", "labels", "overlay"))
    parser.add_argument("--upstream", action="store_true",
                        help="also print the peak memory of a process of upstream's")  # fmt: skip
    options = parser.parse_args()
    parameters = [f"weights:={options.weights}", "stale_after:=0.0"]
    rclpy.init()
    print(f"{machine()}, weights {options.weights}, {options.objects} objects, `{options.output}`, "
          f"{datetime.date.today()}\n")  # fmt: skip
    print("| image | whole way p50, ms | convert | encode | decode | publish | whole way less "
          "encode and decode, ms | peak memory, MB |\n" + "|---" * 8 + "|")  # fmt: skip
    for name, size in _SIZES.items():
        found = run(size, options.objects, options.output, parameters, 0.0, options.frames)
        stages = {s: found.stage(s) for s in ("convert", "encode", "decode", "publish")}
        whole = statistics.median(found.trips)
        print(f"| {name} | {whole:.1f} | " + " | ".join(f"{v:.1f}" for v in stages.values())
              + f" | {whole - stages['encode'] - stages['decode']:.1f} | {found.peak_memory:.0f} |",
              flush=True)  # fmt: skip
    if options.upstream:
        with tempfile.TemporaryDirectory() as directory:
            weights = Path(directory) / "random.pt"
            peaks = [f"{name} {peak_memory('upstream', weights, size=name):.0f}" for name in _SIZES]
        print(f"\npeak memory of upstream's process, MB: {', '.join(peaks)}", flush=True)
    print("\n| at 30 Hz | sent | masks | p50, ms | p99, ms | largest, ms | "
          "model p50 + one frame, ms |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for name, size in _SIZES.items():
        found = run(size, options.objects, options.output, parameters, 30.0, 5 * options.frames)
        bound = found.stage("encode") + found.stage("decode") + 1000 / 30
        times = [found.percentile(50), found.percentile(99), max(found.trips), bound]
        print(f"| {name} | {found.sent} | {len(found.trips)} | "
              + " | ".join(f"{v:.1f}" for v in times) + " |", flush=True)  # fmt: skip
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
