"""What hypothesis draws: messages and files as they come from hardware, and from an adversary.

Most start from something valid and are then spoilt in one or two places: noise alone would never
get past the first check.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from hypothesis import strategies as st
from mobile_sam_ros.msg import Prompt, PromptArray, PromptPoint
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import BoundingBox2D, Detection2D, Detection2DArray, ObjectHypothesisWithPose

SIDE = 64  # of the images that prompts and boxes are drawn for
UINT32 = 2**32 - 1

BYTES_PER_PIXEL = {
    **dict.fromkeys(("mono8", "8UC1", "8SC1", "bayer_rggb8", "bayer_gbrg8", "nv12", "nv21"), 1),
    **dict.fromkeys(("mono16", "16UC1", "16SC1", "8UC2", "bayer_bggr16", "bayer_grbg16"), 2),
    **dict.fromkeys(("yuv422", "uyvy", "yuyv", "yuv422_yuy2", "yuyv_odd"), 2),
    **dict.fromkeys(("rgb8", "bgr8", "8UC3", "8SC3"), 3),
    **dict.fromkeys(("rgba8", "bgra8", "8UC4", "32FC1", "32SC1", "16UC2"), 4),
    **dict.fromkeys(("rgb16", "bgr16", "16UC3", "16SC3"), 6),
    **dict.fromkeys(("rgba16", "bgra16", "64FC1", "32FC2", "16UC4"), 8),
    **dict.fromkeys(("32FC3",), 12),
    **dict.fromkeys(("32FC4", "64FC2"), 16),
    **dict.fromkeys(("64FC3",), 24),
    **dict.fromkeys(("64FC4",), 32),
}
UNKNOWN = ("", "RGB8", "rgb8 ", "rgb", "8UC5", "klingon8", "bayer_xxxx8", "rgb8; jpeg", "a\nb")

text = st.text(max_size=12) | st.sampled_from(["", "a", "\x1b[31m", "a\nb", "x" * 3000])
sizes = st.integers(0, 40) | st.sampled_from([1, 2, 3, 40_000, 2**16, 2**31 - 1, 2**31, UINT32])
# With its checks on, rosidl's Python sets no field to float32's two outermost values: those come
# over the wire only (`test_fuzz_graph.py`).
_OUTERMOST = 3.402823466e38
floats = st.floats(width=32).filter(lambda value: not _OUTERMOST < abs(value) < math.inf)
floats |= st.sampled_from([0.0, -0.0, 1e-30, 1e30, math.nan, math.inf])
doubles = st.floats() | st.sampled_from([0.0, 1e-300, 1e300, -1e300, math.nan, math.inf])
coordinates = st.floats(-SIDE / 2, 1.5 * SIDE) | doubles


@st.composite
def headers(draw: st.DrawFn) -> Header:
    """Any header, also with a stamp that no clock gives."""
    header = Header(frame_id=draw(text))
    header.stamp.sec = draw(st.integers(0, 5) | st.integers(-(2**31), 2**31 - 1))
    header.stamp.nanosec = draw(st.integers(0, 999_999_999) | st.integers(0, UINT32))
    return header


def _contents(draw: st.DrawFn, length: int) -> bytes:
    """Noise, one byte over and over, or floats that are none."""
    kind = draw(st.sampled_from(["noise", "same", "floats"]))
    if kind == "same":
        return bytes([draw(st.integers(0, 255))]) * length
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    if kind == "noise":
        return rng.bytes(length)
    values = rng.choice(np.array([0, 1, -1, 1e30, np.nan, np.inf, -np.inf], "<f4"), length // 4 + 1)
    return values.tobytes()[:length]


@st.composite
def images(draw: st.DrawFn, encodings: st.SearchStrategy[str] | None = None) -> Image:
    """An image, valid but for what may be spoilt."""
    known = st.sampled_from(sorted(BYTES_PER_PIXEL))
    encoding = draw(encodings if encodings is not None else known)
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    if encoding.startswith("nv"):
        height, width = 2 * height, 2 * width
    step = width * BYTES_PER_PIXEL.get(encoding, 1) + draw(st.sampled_from([0, 0, 0, 1, 7, 8]))
    rows = height * 3 // 2 if encoding.startswith("nv") else height
    data = _contents(draw, rows * step)
    message = Image(header=draw(headers()), height=height, width=width, encoding=encoding)
    message.step, message.is_bigendian = step, draw(st.sampled_from([0, 0, 1, 255]))
    for spoilt in draw(st.lists(st.sampled_from(sorted(_SPOIL_IMAGE)), max_size=2)):
        if spoilt == "data":
            length = draw(st.integers(0, len(data)) | st.integers(0, 4096))
            data = (data + bytes(4096))[:length]
        else:
            setattr(message, spoilt, draw(_SPOIL_IMAGE[spoilt]))
    message.data.frombytes(data)
    return message


_SPOIL_IMAGE: dict[str, st.SearchStrategy[Any]] = {
    "height": sizes,
    "width": sizes,
    "step": sizes,
    "encoding": st.sampled_from(UNKNOWN + tuple(BYTES_PER_PIXEL)) | text,
    "is_bigendian": st.integers(0, 255),
    "data": st.nothing(),
}


# --- Compressed images ----------------------------------------------------------------------


def picture(height: int, width: int) -> np.ndarray:
    """A picture that compresses neither to nothing nor badly: uint8 (H, W, 3)."""
    down, across = np.mgrid[:height, :width]
    return np.stack([down * 3 % 256, across * 5 % 256, (down + across) % 256], 2).astype(np.uint8)


def encoded(suffix: str, height: int = 24, width: int = 32, *settings: int) -> bytes:
    """The picture as a file."""
    return cv2.imencode(suffix, picture(height, width), settings)[1].tobytes()


def png_of_size(height: int, width: int, data: bytes) -> bytes:
    """A PNG whose header claims another size, with a checksum that is right."""
    fields = struct.pack(">II", width & UINT32, height & UINT32) + data[24:29]
    header = b"IHDR" + fields
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def jpeg_of_size(height: int, width: int, data: bytes) -> bytes:
    """A JPEG whose header claims another size."""
    at = next(i for i in range(len(data)) if data[i] == 0xFF and data[i + 1] in (0xC0, 0xC2))
    return data[: at + 5] + struct.pack(">HH", height & 0xFFFF, width & 0xFFFF) + data[at + 9 :]


def many_scans(count: int, height: int = 24, width: int = 32) -> bytes:
    """A progressive JPEG with its last scan over and over: each makes the decoder pass over the
    whole picture."""
    data = encoded(".jpg", height, width, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    last = data.rfind(b"\xff\xda")
    return data[:-2] + data[last:-2] * count + data[-2:]


VALID = {
    ".jpg": encoded(".jpg"),
    "progressive": encoded(".jpg", 24, 32, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    ".png": encoded(".png"),
    ".bmp": encoded(".bmp"),
    ".webp": encoded(".webp"),
    ".tiff": encoded(".tiff"),
    "16 bit": cv2.imencode(".png", picture(9, 9).astype(np.uint16) * 200)[1].tobytes(),
    "grey": cv2.imencode(".jpg", picture(9, 9)[..., 0])[1].tobytes(),
    "transparent": cv2.imencode(".png", np.dstack([picture(9, 9), picture(9, 9)[..., 0]]))[
        1
    ].tobytes(),
}


@st.composite
def files(draw: st.DrawFn, valid: st.SearchStrategy[bytes]) -> bytes:
    """A file, valid but for what may be spoilt: cut off, bits turned, parts twice or missing."""
    data = draw(valid)
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(["cut", "turn", "insert", "double", "remove", "tail"]))
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        end = at + draw(st.integers(0, 64))
        if kind == "cut":
            data = data[:at]
        elif kind == "turn" and data:
            data = data[:at] + bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) + data[at + 1 :]
        elif kind == "insert":
            data = data[:at] + draw(st.binary(max_size=16)) + data[at:]
        elif kind == "double":
            data = data[:end] + data[at:]
        elif kind == "remove":
            data = data[:at] + data[end:]
        else:
            data = data + draw(st.binary(max_size=64))
    return data


@st.composite
def compressed_images(draw: st.DrawFn) -> CompressedImage:
    """A compressed image, valid, spoilt, or a bomb."""
    kind = draw(st.sampled_from(["file", "file", "file", "noise", "size", "scans"]))
    if kind == "file":
        data = draw(files(st.sampled_from(sorted(VALID.values()))))
    elif kind == "noise":
        data = draw(st.sampled_from([b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n"]))
        data += draw(st.binary(max_size=200))
    elif kind == "size":
        height, width = draw(sizes), draw(sizes)
        claim = draw(st.sampled_from([png_of_size, jpeg_of_size]))
        data = claim(height, width, VALID[".png" if claim is png_of_size else ".jpg"])
    else:
        data = many_scans(draw(st.integers(0, 100)))
    names = st.sampled_from(["jpeg", "png", "rgb8; jpeg compressed bgr8", ""])
    message = CompressedImage(header=draw(headers()), format=draw(names | text))
    message.data.frombytes(data)
    return message


# --- What to segment ------------------------------------------------------------------------


@st.composite
def boxes(draw: st.DrawFn) -> BoundingBox2D:
    """A detection's box: any numbers at all."""
    box = BoundingBox2D()
    box.center.position.x, box.center.position.y = draw(coordinates), draw(coordinates)
    box.center.theta = draw(st.just(0.0) | doubles)
    box.size_x, box.size_y = (draw(st.floats(0.0, SIDE) | doubles) for _ in range(2))
    return box


@st.composite
def detection_arrays(draw: st.DrawFn, most: int = 6) -> Detection2DArray:
    """Detections, none to a few."""
    result = Detection2DArray(header=draw(headers()))
    for _ in range(draw(st.integers(0, most))):
        detection = Detection2D(bbox=draw(boxes()), id=draw(text))
        for score in draw(st.lists(st.floats(0, 1) | doubles, max_size=2)):
            hypothesis = ObjectHypothesisWithPose()
            hypothesis.hypothesis.class_id, hypothesis.hypothesis.score = draw(text), score
            detection.results.append(hypothesis)
        result.detections.append(detection)
    return result


@st.composite
def prompts(draw: st.DrawFn) -> Prompt:
    """A prompt of any kinds together, or of none."""
    result = Prompt(id=draw(text), class_id=draw(text))
    place = st.floats(0, SIDE, width=32) | floats
    labels = st.sampled_from([0, 1]) | st.integers(0, 255)
    count = draw(st.sampled_from([0, 1, 1, 2, 5, 5000]))
    first = PromptPoint(x=draw(place), y=draw(place), label=draw(labels))
    result.points = [first] * min(count, 1)
    for _ in range(min(count, 5) - 1):
        result.points.append(PromptPoint(x=draw(place), y=draw(place), label=draw(labels)))
    result.points = result.points * (count // 5 if count > 5 else 1)
    if draw(st.booleans()):
        result.box.extend(draw(st.lists(place, min_size=4, max_size=4) | st.lists(place)))
    if draw(st.integers(0, 3)) == 0:
        result.mask = draw(images(st.sampled_from(["mono8", "8UC1", "mono16"])))
        if draw(st.booleans()):
            result.mask = Image(height=SIDE, width=SIDE, encoding="mono8", step=SIDE)
            result.mask.data.frombytes(_contents(draw, SIDE * SIDE))
    return result


@st.composite
def prompt_arrays(draw: st.DrawFn) -> PromptArray:
    """Prompts in one message, of modes that exist and do not."""
    found = draw(st.lists(prompts(), max_size=4))
    mode = draw(st.sampled_from([0, 1, 2]) | st.integers(0, 255))
    return PromptArray(header=draw(headers()), mode=mode, prompts=found)


# --- Depth ----------------------------------------------------------------------------------

depth_images: Callable[[], st.SearchStrategy[Image]] = lambda: images(  # noqa: E731
    st.sampled_from(["32FC1", "16UC1", "mono16", "32FC1", "mono8"])
)


@st.composite
def camera_infos(draw: st.DrawFn) -> CameraInfo:
    """A calibration, usable but for what may be spoilt."""
    message = CameraInfo(header=draw(headers()), height=SIDE, width=SIDE)
    message.k[0] = message.k[4] = 100.0
    message.k[2] = message.k[5] = SIDE / 2
    if draw(st.booleans()):
        message.p[0] = message.p[5] = 90.0
    for _ in range(draw(st.integers(0, 3))):
        field = draw(st.sampled_from(["k", "p"]))
        getattr(message, field)[draw(st.integers(0, 8))] = draw(doubles)
    if draw(st.integers(0, 4)) == 0:
        message.height, message.width = draw(sizes), draw(sizes)
    return message
