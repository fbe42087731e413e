"""Bags as a robot records them: of a procedural scene, with a detector's boxes and the truth."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from rclpy.serialization import serialize_message
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header
from vision_msgs.msg import BoundingBox2D, Detection2D, Detection2DArray, ObjectHypothesisWithPose

from mobile_sam.scenes import MovingScene
from mobile_sam_ros.bags.definitions import add_type
from mobile_sam_ros.conversions import image_message
from mobile_sam_ros.demo.boxes import label_boxes

SECOND = 1_000_000_000
BEGIN = 1_700_000_000 * SECOND
PERIOD = SECOND // 10
SIZE_HW = (96, 128)
SCENE = MovingScene(5, SIZE_HW, 3)
NAMES = {1: "cup", 2: "plate", 3: "cup"}

Record = tuple[int, str, Any]  # log time, topic, message of rclpy, or bytes of an Image


def header(index: int) -> Header:
    """Of the image with that number."""
    result = Header(frame_id="camera")
    result.stamp.sec, result.stamp.nanosec = divmod(BEGIN + index * PERIOD, SECOND)
    return result


def log(index: int, later: int = 5_000_000) -> int:
    """When that image was recorded, or something so many nanoseconds after its stamp."""
    return BEGIN + index * PERIOD + later


def raw(index: int, topic: str = "/image") -> Record:
    """An image."""
    return log(index), topic, image_message(SCENE.frame(index).image, "rgb8", header(index))


def jpeg(index: int, topic: str = "/image/compressed") -> Record:
    """The same, compressed."""
    bgr = cv2.cvtColor(SCENE.frame(index).image, cv2.COLOR_RGB2BGR)
    message = CompressedImage(header=header(index), format="jpeg")
    message.data.frombytes(cv2.imencode(".jpg", bgr)[1].tobytes())
    return log(index), topic, message


def truth(index: int, topic: str = "/truth/labels") -> Record:
    """Which object is where."""
    labels = SCENE.frame(index).labels
    return log(index), topic, image_message(labels, "mono16", header(index))


def boxes(
    index: int, topic: str = "/detections", late: int = 40_000_000, only: Iterable[int] = (1, 2, 3)
) -> Record:
    """What a detector says of the image, a little later."""
    result = Detection2DArray(header=header(index))
    for label, box in label_boxes(SCENE.frame(index).labels, 30).items():
        if label not in only:
            continue
        bbox = BoundingBox2D(size_x=float(box[2] - box[0]), size_y=float(box[3] - box[1]))
        bbox.center.position.x = float(box[0] + box[2]) / 2
        bbox.center.position.y = float(box[1] + box[3]) / 2
        hypothesis = ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id = NAMES[label]
        hypothesis.hypothesis.score = 0.5 + label / 10
        result.detections.append(Detection2D(bbox=bbox, id=str(label), results=[hypothesis]))
    return log(index, late), topic, result


def type_name(message: Any) -> str:
    """The name of the type of a message of rclpy."""
    module = type(message).__module__
    return f"{module.split('.')[0]}/msg/{type(message).__name__}"


def write_bag(
    path: Path, records: Iterable[Record], storage: StoragePlugin = StoragePlugin.MCAP
) -> Path:
    """Writes records, in the order of their log times, by rosbags; returns the path."""
    store = get_typestore(Stores.LATEST)
    connections: dict[str, Connection] = {}
    with Writer(path, version=9, storage_plugin=storage) as writer:
        for time, topic, message in sorted(records, key=lambda record: record[0]):
            name = "sensor_msgs/msg/Image" if isinstance(message, bytes) else type_name(message)
            if topic not in connections:
                add_type(store, name)
                connections[topic] = writer.add_connection(topic, name, typestore=store)
            data = message if isinstance(message, bytes) else serialize_message(message)
            writer.write(connections[topic], time, data)
    return path


def split_bag(path: Path, *parts: Iterable[Record]) -> Path:
    """Writes a bag of several files, each with records of its own; returns the path."""
    path.mkdir()
    information: list[dict[str, Any]] = []
    for number, records in enumerate(parts):
        part = write_bag(path / f"run_{number}", records)
        text = (part / "metadata.yaml").read_text()
        information.append(yaml.safe_load(text)["rosbag2_bagfile_information"])
        (part / f"run_{number}.mcap").rename(path / f"run_{number}.mcap")
        shutil.rmtree(part)
    topics: dict[str, Any] = {}
    for item in (item for part in information for item in part["topics_with_message_count"]):
        known = topics.setdefault(item["topic_metadata"]["name"], item | {"message_count": 0})
        known["message_count"] += item["message_count"]
    files = [file for part in information for file in part["files"]]
    begins = [file["starting_time"]["nanoseconds_since_epoch"] for file in files]
    ends = [begin + file["duration"]["nanoseconds"]
            for begin, file in zip(begins, files, strict=True)]  # fmt: skip
    whole = information[0] | {
        "relative_file_paths": [file["path"] for file in files],
        "files": files,
        "starting_time": {"nanoseconds_since_epoch": min(begins)},
        "duration": {"nanoseconds": max(ends) - min(begins)},
        "message_count": sum(file["message_count"] for file in files),
        "topics_with_message_count": list(topics.values()),
    }
    text = yaml.safe_dump({"rosbag2_bagfile_information": whole})
    (path / "metadata.yaml").write_text(text)
    return path


@dataclass(frozen=True)
class Read:
    """A message as it is read back by the definitions in its bag."""

    topic: str
    log: int
    message: Any
    data: bytes


def read_bag(path: Path) -> Iterator[Read]:
    """Yields the messages of a bag in its order."""
    with AnyReader([path]) as reader:
        for connection, time, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            yield Read(connection.topic, time, message, bytes(data))


def of_topic(path: Path, topic: str) -> list[Read]:
    """Returns the messages of one topic."""
    return [read for read in read_bag(path) if read.topic == topic]


def pixels(message: Any) -> np.ndarray:
    """The pixels of an 8- or 16-bit image of one or three channels."""
    dtype = np.uint16 if message.encoding in ("16UC1", "mono16") else np.uint8
    return message.data.view(dtype).reshape(message.height, message.width, -1).squeeze()
