"""A node process and a node of the test's own that talks with it, over real DDS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from domains import free_domain
from mobile_sam_ros.msg import PromptArray, SegmentArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.task import Future
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import BoundingBox2D, Detection2D, Detection2DArray, ObjectHypothesisWithPose

from mobile_sam.scenes import MovingScene
from mobile_sam_ros.conversions import image_message

OUTPUTS = {
    "mask": Image,
    "labels": Image,
    "overlay": Image,
    "overlay/compressed": CompressedImage,
    "segments": SegmentArray,
    "detections": Detection2DArray,
}
RELIABLE = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE)


class Peer(Node):
    """Publishes to the node under test and keeps all that it answers."""

    def __init__(self, process: Process, detections_type: Any) -> None:
        super().__init__("peer")
        self._process = process
        self.executor_ = SingleThreadedExecutor()
        self.executor_.add_node(self)
        self.received: dict[str, list[Any]] = {}
        self._known_clients: dict[str, Any] = {}
        self.images = self.create_publisher(Image, "image", RELIABLE)
        self.detections = self.create_publisher(detections_type, "detections", RELIABLE)
        self.prompts = self.create_publisher(PromptArray, "prompts", RELIABLE)
        self.listen("/diagnostics", DiagnosticArray)

    def listen(self, name: str, kind: Any = None, qos: QoSProfile = RELIABLE) -> list[Any]:
        """Subscribes to an output of the node (or a topic with a slash before it)."""
        topic = name if name.startswith("/") else f"/sam/{name}"
        kept = self.received.setdefault(name, [])
        self.create_subscription(kind or OUTPUTS[name], topic, kept.append, qos)
        return kept

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = 45.0) -> Any:
        """Spins until `condition` is true and returns its value."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value = condition()
            if value:
                return value
            self.executor_.spin_once(timeout_sec=0.05)
            if self._process.process.poll() is not None:
                raise AssertionError(f"the node has ended:\n{self._process.log.read_text()}")
        raise AssertionError(f"after {seconds} s still not: {what}")

    def ask(self, kind: Any, name: str, request: Any) -> Future:
        """Calls a service, and leaves it to the caller to wait."""
        if name not in self._known_clients:
            self._known_clients[name] = self.create_client(kind, name)
        client = self._known_clients[name]
        self.wait(client.service_is_ready, f"service {name}")
        return client.call_async(request)

    def call(self, kind: Any, name: str, request: Any) -> Any:
        """Calls a service and returns its answer."""
        future = self.ask(kind, name, request)
        self.wait(future.done, f"an answer of {name}")
        return future.result()

    def spin_for(self, seconds: float) -> None:
        """Spins, for what must not happen."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor_.spin_once(timeout_sec=0.05)

    def stands(self, *publishers: Any) -> None:
        """Waits until the node listens to the publishers and its outputs are heard."""
        for publisher in publishers or (self.images, self.detections, self.prompts):
            self.wait(publisher.get_subscription_count, f"somebody on {publisher.topic}")
        for name in self.received:
            topic = name if name.startswith("/") else f"/sam/{name}"
            self.wait(lambda t=topic: self.count_publishers(t), f"a publisher on {topic}")

    def values(self) -> dict[str, str]:
        """Returns the newest diagnostics."""
        if not self.received["/diagnostics"]:
            return {}
        return {v.key: v.value for v in self.received["/diagnostics"][-1].status[0].values}

    def level(self) -> tuple[int, str]:
        """Returns level and message of the newest diagnostics, -1 if there are none yet."""
        if not self.received["/diagnostics"]:
            return -1, ""
        status = self.received["/diagnostics"][-1].status[0]
        return status.level[0], status.message

    def number(self, key: str) -> float:
        """Returns one number of the newest diagnostics, 0 if it is not there yet."""
        return float(self.values().get(key, 0))


class Process:
    """The node under test, as users run it."""

    def __init__(
        self,
        log: Path,
        parameters: dict[str, Any],
        remaps: dict[str, str],
        reliable: bool,
        cameras: Sequence[str],
        program: Sequence[str],
        environ: dict[str, str],
    ) -> None:
        self.log = log
        self.domain = free_domain()
        command = [sys.executable, *program]
        command += ["--cameras", ",".join(cameras), "--ros-args"]
        # Best effort, a first image may be lost while the node's side of the connection is not up
        # yet, which nothing tells; under load that happens.
        spaces = [f"/{camera}" for camera in cameras] or [""]
        topics = [f"{s}/image{kind}" for s in spaces for kind in ("", "/compressed")]
        for topic in topics if reliable else ():
            command += ["-p", f"qos_overrides.{topic}.subscription.reliability:=reliable"]
        # Ready at once, unless a test wants what users have.
        for name, value in ({"backend": "torch"} | parameters).items():
            command += ["-p", f"{name}:={value}"]
        for name, value in remaps.items():
            command += ["-r", f"{name}:={value}"]
        with log.open("w") as file:
            self.process = subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ
                | {"ROS_DOMAIN_ID": str(self.domain), "RCUTILS_COLORIZED_OUTPUT": "0"}
                | environ,
            )

    def said(self, text: str) -> int:
        """Returns how often the log has `text`."""
        return self.log.read_text().count(text)

    def end(
        self, number: int = signal.SIGINT, times: int = 1, seconds: float = 10.0
    ) -> tuple[int, float]:
        """Sends a signal, or the same one again a little later; returns exit status and how long
        it took."""
        begin = time.monotonic()
        self.process.send_signal(number)
        for _ in range(times - 1):
            time.sleep(0.05)  # into the orderly end, of which nothing is seen from here
            self.process.send_signal(number)
        try:
            return self.process.wait(seconds), time.monotonic() - begin
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@contextmanager
def running(
    log: Path,
    remaps: dict[str, str] | None = None,
    reliable: bool = True,
    cameras: Sequence[str] = (),
    program: Sequence[str] = ("-m", "mobile_sam_ros.run"),
    environ: dict[str, str] | None = None,
    **parameters: Any,
) -> Iterator[Process]:
    """Runs a node with the demo weights unless `parameters` say others; it is gone afterwards,
    whatever happens. `reliable`: also the images it gets."""
    parameters = {"weights": "demo", **parameters}
    node = Process(log, parameters, remaps or {}, reliable, cameras, program, environ or {})
    try:
        yield node
    finally:
        if node.process.poll() is None:
            node.process.kill()
            node.process.wait()


def scene_image(
    index: int, stamp: int, frame_id: str = "camera", size_hw: tuple[int, int] = (240, 320)
) -> Image:
    """A procedural image with a stamp in nanoseconds."""
    return image_message(SCENE(size_hw).frame(index).image, "rgb8", header(stamp, frame_id))


def SCENE(size_hw: tuple[int, int] = (240, 320)) -> MovingScene:  # noqa: N802
    """The scene that the tests look at."""
    return MovingScene(5, size_hw, 3)


def stamps() -> int:
    """A stamp later than all before, like a clock's."""
    return time.time_ns()


def object_mask(index: int) -> np.ndarray:
    """The largest object in the scene, bool (H, W)."""
    labels = SCENE().frame(index).labels
    areas = np.bincount(labels.ravel())
    return labels == 1 + int(areas[1:].argmax())


def object_box(index: int) -> tuple[float, float, float, float]:
    """Its box."""
    rows, columns = np.nonzero(object_mask(index))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def header(stamp: int, frame_id: str = "camera") -> Header:
    """A header with a stamp in nanoseconds."""
    result = Header(frame_id=frame_id)
    result.stamp.sec, result.stamp.nanosec = divmod(stamp, 1_000_000_000)
    return result


def box_detection(
    box: tuple[float, float, float, float], name: str = "", score: float = 0.9
) -> Detection2D:
    """A detection of class "thing" with a box x_min, y_min, x_max, y_max."""
    bbox = BoundingBox2D(size_x=float(box[2] - box[0]), size_y=float(box[3] - box[1]))
    bbox.center.position.x = float(box[0] + box[2]) / 2
    bbox.center.position.y = float(box[1] + box[3]) / 2
    hypothesis = ObjectHypothesisWithPose()
    hypothesis.hypothesis.class_id = "thing"
    hypothesis.hypothesis.score = score
    return Detection2D(bbox=bbox, id=name, results=[hypothesis])


def detections(stamp: int, *items: Detection2D, frame_id: str = "camera") -> Detection2DArray:
    """Detections of the image with a stamp."""
    return Detection2DArray(header=header(stamp, frame_id), detections=list(items))


def pixels(message: Image) -> np.ndarray:
    """The pixels of an 8- or 16-bit image of one or three channels."""
    dtype = np.uint16 if message.encoding in ("16UC1", "mono16") else np.uint8
    array = np.frombuffer(message.data, dtype)
    return array.reshape(message.height, message.width, -1).squeeze()


@contextmanager
def peer(process: Process, detections_type: Any = Detection2DArray) -> Iterator[Peer]:
    """A peer of a node process."""
    rclpy.init(domain_id=process.domain)
    node = Peer(process, detections_type)
    try:
        yield node
    finally:
        node.executor_.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
