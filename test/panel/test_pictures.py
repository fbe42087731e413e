"""What goes over the wire, taken apart again and compared with what went in."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from graph import header
from mobile_sam_ros.msg import Segment, SegmentArray
from sensor_msgs.msg import CompressedImage, Image, RegionOfInterest

from mobile_sam_ros.conversions import BadMessage, compressed_message, image_message
from mobile_sam_ros.panel.meter import Meter
from mobile_sam_ros.panel.pictures import Colours, Encoder, Picture

STAMP = 1_700_000_000_123_456_789  # more than JavaScript's numbers hold


def photograph(height: int = 60, width: int = 80) -> np.ndarray:
    """Something smooth, which JPEG keeps."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 2, columns * 2, rows + columns], axis=2).astype(np.uint8)


def segment(id: str, x: int, y: int, width: int, height: int, **fields: object) -> Segment:
    """An object that fills its box."""
    mask = image_message(np.full((height, width), 255, np.uint8), "mono8", header(STAMP))
    roi = RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height)
    return Segment(id=id, roi=roi, mask=mask, area=width * height, **fields)


def apart(data: bytes) -> tuple[dict, np.ndarray, np.ndarray | None]:
    """The header, the image in RGB and the painting in RGBA."""
    length = int.from_bytes(data[:4], "big")
    head = json.loads(data[4 : 4 + length])
    rest = np.frombuffer(data[4 + length :], np.uint8)
    assert len(rest) == head["jpeg"] + head["png"]
    jpeg, png = rest[: head["jpeg"]], rest[head["jpeg"] :]
    image = cv2.cvtColor(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    if not len(png):
        return head, image, None
    painted = cv2.cvtColor(cv2.imdecode(png, cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)
    return head, image, painted


@pytest.mark.parametrize("compressed", [False, True])
def test_an_image_without_objects(compressed: bool) -> None:
    pixels = photograph()
    message: Image | CompressedImage = image_message(pixels, "rgb8", header(STAMP))
    if compressed:
        message = compressed_message(pixels, header(STAMP), 95)
    head, image, painted = apart(Encoder(0).encode(Picture(message)))
    assert (head["width"], head["height"], head["stamp"]) == (80, 60, str(STAMP))
    assert head["objects"] == [] and painted is None and head["still"] is False
    assert np.abs(image.astype(int) - pixels).mean() < 4


def test_objects_are_painted_where_they_are() -> None:
    found = [
        segment("large", 10, 5, 40, 30, class_id="box", score=0.7, state=Segment.ACTIVE, age=3),
        segment("small", 20, 10, 10, 12),  # on top of it
        Segment(id="gone", state=Segment.LOST, unseen=9),
    ]
    segments = SegmentArray(header=header(STAMP), height=60, width=80, segments=found)
    message = image_message(photograph(), "rgb8", header(STAMP))
    head, _, painted = apart(Encoder(0).encode(Picture(message, segments)))
    large, small, gone = head["objects"]
    assert (large["id"], large["name"], large["box"]) == ("large", "box", [10, 5, 40, 30])
    assert (large["state"], large["age"], gone["state"], gone["unseen"]) == ("active", 3, "lost", 9)
    assert large["score"] == pytest.approx(0.7) and small["state"] == ""
    assert painted is not None
    expected = np.zeros((60, 80), bool)
    expected[5:35, 10:50] = True
    assert ((painted[..., 3] == 255) == expected).all() and set(np.unique(painted[..., 3])) <= {
        0,
        255,
    }
    for item, (row, column) in ((large, (30, 45)), (small, (15, 25))):
        assert "#{:02x}{:02x}{:02x}".format(*painted[row, column, :3]) == item["colour"]
    assert painted[5, 10:20].tolist() == [[255, 255, 255, 255]] * 10  # the outline


def test_large_pictures_are_made_smaller_and_boxes_stay_in_the_image() -> None:
    segments = SegmentArray(segments=[segment("a", 40, 20, 40, 40)])
    message = image_message(photograph(100, 160), "rgb8", header(STAMP))
    head, image, painted = apart(Encoder(80).encode(Picture(message, segments)))
    assert image.shape[:2] == (50, 80) and (head["width"], head["height"]) == (160, 100)
    assert head["objects"][0]["box"] == [40, 20, 40, 40]
    assert painted is not None and np.argwhere(painted[..., 3]).min(axis=0).tolist() == [10, 20]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (segment("far", 70, 5, 40, 30), "'far' reaches out of the image of 80x60"),
        (
            Segment(id="torn", roi=RegionOfInterest(width=5, height=5), mask=Image()),
            "mask has encoding ''",
        ),
    ],
)
def test_what_does_not_fit_is_said(wrong: Segment, said: str) -> None:
    message = image_message(photograph(), "rgb8", header(STAMP))
    encoder = Encoder(0)
    with pytest.raises(BadMessage, match=said):
        encoder.encode(Picture(message, SegmentArray(segments=[wrong])))
    assert apart(encoder.encode(Picture(message)))[0]["objects"] == []


def test_colours_stay_and_differ() -> None:
    colours = Colours()
    first = [colours(f"object_{i}") for i in range(20)]
    assert first == [colours(f"object_{i}") for i in range(20)]
    assert len(set(first)) == 20


def test_the_meter_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("mobile_sam_ros.panel.meter.monotonic", lambda: now)
    meter = Meter()
    for i in range(60):
        now = 100 + i / 10
        meter.image()
        if i % 2 == 0:
            meter.mask(now - 0.08)
    values = meter.values()
    assert values["images_hz"] == pytest.approx(10, abs=0.5)
    assert values["masks_hz"] == pytest.approx(5, abs=0.5)
    assert values["latency_ms"] == pytest.approx(80, abs=1)
    now += 10
    assert meter.values() == {"images_hz": 0, "masks_hz": 0, "latency_ms": None}
