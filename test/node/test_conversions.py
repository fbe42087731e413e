"""Images and boxes from messages, against OpenCV's own conversions, and what bad ones say."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import BoundingBox2D

from mobile_sam_ros.conversions import (
    BadMessage,
    bounding_box_message,
    box_from_detection,
    image_message,
    rgb_from_compressed,
    rgb_from_image,
)

RGB = np.random.default_rng(1).integers(0, 256, (6, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("encoding", "code"),
    [
        ("rgb8", None),
        ("bgr8", cv2.COLOR_RGB2BGR),
        ("rgba8", cv2.COLOR_RGB2RGBA),
        ("bgra8", cv2.COLOR_RGB2BGRA),
    ],
)
def test_colours_come_back(encoding: str, code: int | None) -> None:
    pixels = RGB if code is None else cv2.cvtColor(RGB, code)
    np.testing.assert_array_equal(rgb_from_image(image_message(pixels, encoding, Header())), RGB)


def two_colours() -> np.ndarray:
    """A picture whose colours survive half the resolution: uint8 (32, 48, 3)."""
    picture = np.empty((32, 48, 3), np.uint8)
    picture[:, :24], picture[:, 24:] = (200, 60, 30), (20, 90, 220)
    picture[:16] //= 2
    return picture


def raw(encoding: str) -> np.ndarray:
    """The same picture as a camera sends it, (rows, ...) of bytes or 16-bit numbers."""
    picture = two_colours()
    wide = "16" in encoding
    deep = picture.astype(np.uint16) * 257 if wide else picture
    if encoding.startswith("bayer"):
        mosaic = np.empty(picture.shape[:2], deep.dtype)
        for place, letter in enumerate(encoding[6:10]):
            at = (slice(place // 2, None, 2), slice(place % 2, None, 2))
            mosaic[at] = deep[..., "rgb".index(letter)][at]
        return mosaic
    if encoding[:3] in ("rgb", "bgr"):
        letters = encoding.rstrip("0123456789").replace("a", "r")  # alpha may be anything
        return deep[..., ["rgb".index(letter) for letter in letters]]
    planes = cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420)
    y, u, v = planes[:32], planes[32:40].reshape(16, 24), planes[40:].reshape(16, 24)
    if encoding in ("nv12", "nv21"):
        pair = (u, v) if encoding == "nv12" else (v, u)
        return np.vstack([y, np.stack(pair, axis=2).reshape(16, 48)])
    u, v = np.repeat(u, 2, axis=0), np.repeat(v, 2, axis=0)
    colour = np.stack([u, v], axis=2).reshape(32, 48)
    y_first = encoding in ("yuyv", "yuv422_yuy2")
    return np.stack([y, colour] if y_first else [colour, y], axis=2)


ENCODINGS = [
    *(f"bayer_{order}{bits}" for order in ("rggb", "bggr", "gbrg", "grbg") for bits in (8, 16)),
    *("rgb16", "bgr16", "rgba16", "bgra16"),
    *("yuv422", "uyvy", "yuv422_yuy2", "yuyv", "nv12", "nv21"),
]


@pytest.mark.parametrize("padding", [0, 10])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_cameras_send(encoding: str, padding: int) -> None:
    """Also with padded rows. At seams the half resolution shows; inside, colours are as sent."""
    pixels = raw(encoding)
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(len(pixels), -1)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    message = Image(height=32, width=48, encoding=encoding, step=padded.shape[1])
    message.data.frombytes(padded.tobytes())
    found = rgb_from_image(message).astype(int)
    for corner in ((4, 8), (4, 40), (24, 8), (24, 40)):
        np.testing.assert_allclose(found[corner], two_colours()[corner], atol=3)


def test_big_endian_numbers() -> None:
    little = raw("rgb16")
    message = Image(height=32, width=48, encoding="rgb16", step=288, is_bigendian=1)
    message.data.frombytes(little.byteswap().tobytes())
    np.testing.assert_allclose(rgb_from_image(message), two_colours(), atol=1)


@pytest.mark.parametrize(
    ("encoding", "change", "said"),
    [
        ("nv12", {"height": 48}, "nv12 has size 48x48, step 48 and 2304 bytes"),
        ("nv21", {"width": 47}, "needs even sides"),
        ("yuyv", {"step": 95}, "48 pixels of yuyv are 96 bytes"),
        ("bayer_rggb16", {"step": 90}, "are 96 bytes"),
        ("rgb16", {"height": 33}, "times step 288 is 9504"),
    ],
)
def test_bad_images_of_cameras(encoding: str, change: dict[str, int], said: str) -> None:
    pixels = raw(encoding)
    step = pixels.nbytes // len(pixels)
    message = Image(height=32, width=48, encoding=encoding, step=step)
    message.data.frombytes(pixels.tobytes())
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(BadMessage, match=said):
        rgb_from_image(message)


def test_grey_has_three_equal_channels() -> None:
    found = rgb_from_image(image_message(RGB[..., 0], "mono8", Header()))
    np.testing.assert_array_equal(found, np.repeat(RGB[..., :1], 3, axis=2))


def test_sixteen_bits_are_stretched_to_eight() -> None:
    wide = RGB[..., 0].astype(np.uint16) * 20 + 1000  # as a thermal camera has it: a narrow range
    found = rgb_from_image(image_message(wide, "mono16", Header()))
    low, high = int(RGB[..., 0].min()), int(RGB[..., 0].max())
    expected = (RGB[..., 0].astype(float) - low) * 255 / (high - low)
    assert found.shape == RGB.shape and found.dtype == np.uint8
    np.testing.assert_allclose(found[..., 1], expected, atol=1)


def test_bayer_of_one_colour_is_that_colour() -> None:
    mosaic = np.full((8, 8), 30, np.uint8)
    mosaic[::2, ::2] = 200  # red
    mosaic[1::2, 1::2] = 90  # blue
    found = rgb_from_image(image_message(mosaic, "bayer_rggb8", Header()))
    np.testing.assert_array_equal(found[3, 3], (200, 30, 90))


def test_padding_of_rows_is_left_out() -> None:
    padded = np.concatenate([RGB.reshape(6, 24), np.full((6, 5), 77, np.uint8)], axis=1)
    message = Image(height=6, width=8, encoding="rgb8", step=29)
    message.data.frombytes(padded.tobytes())
    np.testing.assert_array_equal(rgb_from_image(message), RGB)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"height": 0}, "8x0"),
        ({"encoding": "purple12"}, "purple12"),
        ({"step": 23}, "step 23"),
        ({"height": 7}, "144 bytes"),
    ],
)
def test_bad_images_say_what_is_wrong(change: dict[str, object], said: str) -> None:
    message = image_message(RGB, "rgb8", Header())
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(BadMessage, match=said):
        rgb_from_image(message)


def test_compressed_images() -> None:
    data = cv2.imencode(".png", cv2.cvtColor(RGB, cv2.COLOR_RGB2BGR))[1].tobytes()
    np.testing.assert_array_equal(rgb_from_compressed(CompressedImage(data=data)), RGB)
    with pytest.raises(BadMessage, match="'jpeg' with 9 bytes"):
        rgb_from_compressed(CompressedImage(format="jpeg", data=b"not a jpg"))


def detection_box(x: float, y: float, w: float, h: float, theta: float = 0) -> BoundingBox2D:
    """A box by its centre and size."""
    box = BoundingBox2D(size_x=float(w), size_y=float(h))
    box.center.position.x, box.center.position.y = float(x), float(y)
    box.center.theta = float(theta)
    return box


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((50, 40, 20, 10), (40, 35, 60, 45)),
        ((0, 0, 20, 10), (0, 0, 10, 5)),
        ((100, 80, 40, 40), (80, 60, 100, 80)),
        ((50, 40, 20, 10, np.pi / 2), (45, 30, 55, 50)),
        ((50, 40, 500, 500), (0, 0, 100, 80)),
    ],
)
def test_boxes_are_cut_to_the_image(box: tuple[float, ...], expected: tuple[float, ...]) -> None:
    found = box_from_detection(detection_box(*box), (80, 100))
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ((120, 40, 20, 10), "outside of the image of 100x80"),
        ((50, 40, 0, 10), "size 0x10"),
        ((50, float("nan"), 5, 5), "nan"),
    ],
)
def test_bad_boxes_say_what_is_wrong(box: tuple[float, ...], said: str) -> None:
    with pytest.raises(BadMessage, match=said):
        box_from_detection(detection_box(*box), (80, 100))


def test_boxes_go_out_as_they_came() -> None:
    box = np.array([3, 4, 10, 20], np.float32)
    np.testing.assert_array_equal(box_from_detection(bounding_box_message(box), (80, 100)), box)


def test_boxes_of_a_smaller_image_are_scaled() -> None:
    """Of a detector that works on 50x20 pixels, where the image has 100x80."""
    found = box_from_detection(detection_box(25, 10, 10, 5), (80, 100), detector_hw=(20, 50))
    np.testing.assert_allclose(found, (40, 30, 60, 50))
    padded = box_from_detection(detection_box(25, 10, 10, 5), (80, 100), 0.1, (20, 50))
    np.testing.assert_allclose(padded, (38, 28, 62, 52))
    half = box_from_detection(detection_box(25, 40, 10, 20), (80, 100), detector_hw=(0, 50))
    np.testing.assert_allclose(half, (40, 30, 60, 50))


def test_a_padded_box_grows_on_all_sides_and_stays_in_the_image() -> None:
    box = BoundingBox2D(size_x=20.0, size_y=10.0)
    box.center.position.x, box.center.position.y = 30.0, 6.0
    assert box_from_detection(box, (100, 100)).tolist() == [20, 1, 40, 11]
    assert box_from_detection(box, (100, 100), 0.1).tolist() == [18, 0, 42, 12]
    assert box_from_detection(box, (100, 100), 0.5).tolist() == [10, 0, 50, 16]
