"""Objects of a bag in three dimensions, and what is said where its depth is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded import (
    SECOND,
    SIZE_HW,
    Record,
    boxes,
    header,
    log,
    of_topic,
    pixels,
    raw,
    write_bag,
)
from sensor_msgs.msg import CameraInfo

from mobile_sam_ros.bags.segment_bag import main
from mobile_sam_ros.bags.source import SourceBag
from mobile_sam_ros.bags.space import Space
from mobile_sam_ros.conversions import BadMessage, image_message

DETECTIONS = ("--detections", "/detections")
TOPICS = ("--depth", "/depth", "--camera-info", "/info")


def segment(bag: Path, *arguments: object) -> int:
    """Runs the command as it is run by hand."""
    return main([str(bag), "--weights", "demo", "--backend", "torch", *map(str, arguments)])


def depth(index: int, metres: float) -> Record:
    """A wall, recorded a little after its image."""
    values = np.full(SIZE_HW, round(metres * 1000), np.uint16)
    return log(index, 9_000_000), "/depth", image_message(values, "16UC1", header(index))


def info(index: int) -> Record:
    """A calibration."""
    message = CameraInfo(header=header(0), height=SIZE_HW[0], width=SIZE_HW[1])
    message.p = [100.0, 0.0, 63.5, 0.0, 0.0, 100.0, 47.5, 0.0, 0.0, 0.0, 1.0, 0.0]
    return log(index), "/info", message


def test_objects_in_three_dimensions(tmp_path: Path) -> None:
    records = [f(i) for i in range(2) for f in (raw, boxes)]
    records += [depth(0, 1.5), depth(1, 2.0), info(1)]
    bag = write_bag(tmp_path / "run", records)
    assert segment(bag, *DETECTIONS, *TOPICS) == 0
    new = tmp_path / "run_segmented"
    for read, metres in zip(of_topic(new, "/sam/detections_3d"), (1.5, 2.0), strict=True):
        assert [item.id for item in read.message.detections] == ["1", "2", "3"]
        for item in read.message.detections:
            assert item.bbox.center.position.z == pytest.approx(metres)
            assert item.bbox.center.orientation.w == 1.0
    cloud = of_topic(new, "/sam/points")[0].message
    kind = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4"), ("label", "<u4")])
    points = cloud.data.view(kind)
    assert [field.name for field in cloud.fields] == list(kind.names or ())
    labels = pixels(of_topic(new, "/sam/labels")[0].message)
    column = np.round(points["x"] / points["z"] * 100 + 63.5).astype(int)
    row = np.round(points["y"] / points["z"] * 100 + 47.5).astype(int)
    assert len(points) > 500 and (labels[row, column] > 0).all()


def late(index: int, by: int) -> Record:
    """Depth whose stamp and record are so many nanoseconds later."""
    time, topic, message = depth(index, 1.0)
    seconds, message.header.stamp.nanosec = divmod(message.header.stamp.nanosec + by, SECOND)
    message.header.stamp.sec += seconds
    return time + by, topic, message


@pytest.mark.parametrize(
    ("by", "why"),
    [
        (30_000_000, "the nearest stamp differs by 0.030000 s: --depth-slop"),
        (5 * SECOND, "none was recorded within 1 s of them"),
    ],
)
def test_depth_that_is_of_no_image_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], by: int, why: str
) -> None:
    bag = write_bag(tmp_path / "run", [raw(0), boxes(0), info(0), late(0, by)])
    output = ["--outputs", "points", "--output"]
    assert segment(bag, *DETECTIONS, *TOPICS, *output, tmp_path / "new") == 0
    assert f"/depth: no depth for 1 of 1 images, {why}" in capsys.readouterr().err
    assert not of_topic(tmp_path / "new", "/sam/points")


def test_a_calibration_that_cannot_be_read_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = SourceBag.decoder

    def decoder_(source: SourceBag, topic: str) -> Callable[[bytes], Any]:
        def decode(data: bytes) -> Any:
            raise BadMessage("not a sensor_msgs/msg/CameraInfo")

        return decode if topic == "/info" else decoder(source, topic)

    monkeypatch.setattr(SourceBag, "decoder", decoder_)
    bag = write_bag(tmp_path / "run", [raw(0), boxes(0), info(0), depth(0, 1.0)])
    assert segment(bag, *DETECTIONS, *TOPICS, "--outputs", "points") == 0
    said = capsys.readouterr().err
    assert "/info: no calibration for 1 of 1 images" in said and "no depth" not in said


def test_depth_long_before_the_first_image_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A calibration is: it may be said only once."""
    read: list[tuple[str, int | None]] = []
    messages = SourceBag.messages

    def messages_(source: SourceBag, topics: list[str], start: int | None = None) -> Any:
        read.append((topics[0], start))
        return messages(source, topics, start)

    bag = write_bag(tmp_path / "run", [info(0), depth(0, 1.0), depth(30, 2.0)])
    monkeypatch.setattr(SourceBag, "messages", messages_)
    with SourceBag(bag) as source:
        Space(source, "/depth", "/info", 0, log(30), pytest.fail)
    assert sorted(read) == [("/depth", log(30) - SECOND), ("/info", None)]
