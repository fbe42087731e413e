"""A long bag through segment-bag: images a second, and whether its memory grows.

    python3 tools/environment.py run -- python3 benchmarks/long_bag.py --minutes 10

Writes a bag of the moving scene, 640x480 at 10 Hz, with the boxes of its four objects in each
image; runs the command on it as a process of its own, and looks at its resident memory meanwhile.
"""

from __future__ import annotations

import argparse
import datetime
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import process_memory
from rosbags.rosbag2 import StoragePlugin, Writer

from mobile_sam.benchmark import machine
from mobile_sam.scenes import MovingScene
from mobile_sam_ros.bags.plain_messages import PlainClasses, result_classes
from mobile_sam_ros.conversions import bounding_box_message, image_message
from mobile_sam_ros.demo.boxes import label_boxes

_SECOND = 1_000_000_000
_RATE = 10
_DIFFERENT = 300  # images; then they come again
_KINDS = {
    "raw": "sensor_msgs/msg/Image",
    "jpeg": "sensor_msgs/msg/CompressedImage",
    "boxes": "vision_msgs/msg/Detection2DArray",
}


def frames(classes: PlainClasses, kind: str) -> Iterator[tuple[object, object]]:
    """Yields an image and its detections, without stamps."""
    scene = MovingScene(5, (480, 640), 4)
    made: list[tuple[object, object]] = []
    for index in count():
        if index >= _DIFFERENT:
            yield made[index % _DIFFERENT]
            continue
        frame = scene.frame(index)
        header = classes("std_msgs/msg/Header")(frame_id="camera")
        if kind == "raw":
            image = image_message(frame.image, "rgb8", header, classes)
        else:
            image = classes(_KINDS["jpeg"])(header=header, format="jpeg")
            bgr = cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)
            image.data.frombytes(cv2.imencode(".jpg", bgr)[1].tobytes())
        found = classes(_KINDS["boxes"])(header=header)
        for label, box in label_boxes(frame.labels, 30).items():
            bbox = bounding_box_message(box, classes)
            detection = classes("vision_msgs/msg/Detection2D")(bbox=bbox, id=str(label))
            found.detections.append(detection)
        made.append((image, found))
        yield image, found


def write(path: Path, images: int, kind: str) -> None:
    """Writes the bag."""
    classes = result_classes()
    with Writer(path, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        image_topic, boxes_topic = (
            writer.add_connection(topic, _KINDS[name], typestore=classes.store)
            for topic, name in (("/image", kind), ("/detections", "boxes"))
        )
        for index, (image, found) in zip(range(images), frames(classes, kind), strict=False):
            time_ = _SECOND * 1_700_000_000 + index * _SECOND // _RATE
            for message in (image, found):
                stamp = message.header.stamp  # type: ignore[attr-defined]
                stamp.sec, stamp.nanosec = divmod(time_, _SECOND)
            writer.write(image_topic, time_, classes.to_bytes(image))
            writer.write(boxes_topic, time_ + _SECOND // 50, classes.to_bytes(found))


def run(bag: Path, arguments: list[str]) -> tuple[list[tuple[float, float]], float, float]:
    """Runs the command; returns (seconds, MB) of moments, and how long each pass took."""
    command = [sys.executable, "-m", "mobile_sam_ros.bags.segment_bag", str(bag), *arguments]
    partial = bag.with_name(f"{bag.name}_segmented.partial") / f"{bag.name}_segmented"
    begin, second_pass, samples = time.monotonic(), 0.0, []
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            now = time.monotonic() - begin
            samples.append((now, process_memory.resident(process.pid)))
            if not second_pass and partial.exists():
                second_pass = now
            time.sleep(0.2)
    finally:
        process.kill()
    if process.returncode:
        raise SystemExit(f"segment-bag ended with {process.returncode}")
    return samples, second_pass, time.monotonic() - begin - second_pass


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="of the bag (%(default)s)")
    parser.add_argument("--kind", choices=("raw", "jpeg"), default="jpeg", help="(%(default)s)")
    parser.add_argument("arguments", nargs="*", help="more for segment-bag, after --")
    options = parser.parse_args()
    images = round(options.minutes * 60 * _RATE)
    with tempfile.TemporaryDirectory() as folder:
        bag = Path(folder, "run")
        write(bag, images, options.kind)
        size = sum(file.stat().st_size for file in bag.iterdir()) / 1e6
        arguments = ["--detections", "/detections", *options.arguments]
        samples, first, second = run(bag, arguments)
    print(f"{machine()}, {datetime.date.today()}")
    print(f"{images} images 640x480 ({options.kind}, {size:.0f} MB), {' '.join(arguments)}")
    print(f"first pass {first:.0f} s with loading, second {second:.0f} s")
    seconds, megabytes = np.array(samples).T
    for name, low, high in (("first", 0.0, first), ("second", first, first + second)):
        cells = []
        for tenth in range(10):
            edges = low + (high - low) * np.array([tenth, tenth + 1]) / 10
            inside = megabytes[(seconds >= edges[0]) & (seconds < edges[1])]
            cells.append(f"{inside.max():.0f}" if len(inside) else "-")
        print(f"most MB in each tenth of the {name} pass: {' '.join(cells)}")


if __name__ == "__main__":
    main()
