"""Messages of all kinds: each gives a result, or one message that names the field and its value."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
import strategies as some
from hypothesis import given
from hypothesis import strategies as st
from mobile_sam_ros.msg import Prompt
from painter import SIDE, painter
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import BoundingBox2D

from mobile_sam.image_headers import read_header
from mobile_sam.segments import Segments
from mobile_sam_ros.conversions import (
    box_from_detection,
    image_message,
    mask_from_image,
    rgb_from_compressed,
    rgb_from_image,
)
from mobile_sam_ros.depth import camera_from_info, metres_from_image
from mobile_sam_ros.point_cloud import cloud_message, solids
from mobile_sam_ros.prompts import prompt_from_message

pytestmark = pytest.mark.usefixtures("limited_memory")
HW = (SIDE, SIDE)
PREDICTOR = painter()


@pytest.fixture(autouse=True)
def warnings_are_errors() -> Any:
    """An overflow is a case that nobody thought of."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def result_or_message(call: Callable[[], Any], *names: str) -> Any:
    """Returns the result; None if there is a message, which is one line, short, and names one of
    `names`, and a number or a quoted text."""
    try:
        return call()
    except ValueError as error:
        said = str(error)
    assert "\n" not in said and len(said) < 500, said
    assert any(name in said for name in names), said
    assert re.search(r"\d|'|nan|inf|needs", said), said
    return None


@given(some.images())
def test_images(message: Image) -> None:
    found = result_or_message(lambda: rgb_from_image(message), "image")
    if found is not None:
        assert found.shape == (message.height, message.width, 3) and found.dtype == np.uint8


@given(some.compressed_images())
def test_compressed_images(message: CompressedImage) -> None:
    found = result_or_message(lambda: rgb_from_compressed(message), "compressed image of format")
    if found is not None:
        assert found.ndim == 3 and found.shape[2] == 3 and found.dtype == np.uint8


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (some.png_of_size(30_000, 30_000, some.VALID[".png"]), "900000000 pixels, more than"),
        (some.jpeg_of_size(30_000, 30_000, some.VALID[".jpg"]), "900000000 pixels, more than"),
        (some.png_of_size(1, 1 << 30, some.VALID[".png"]), "side of more than 32767"),
        (some.many_scans(10_000), "scans, more than 64"),
        (some.VALID[".tiff"], "neither JPEG nor PNG"),
    ],
    ids=["png", "jpeg", "thin", "scans", "format"],
)
def test_bombs_are_seen_before_they_are_decoded(data: bytes, said: str) -> None:
    """Each would take gigabytes, or hours."""
    begin = time.monotonic()
    with pytest.raises(ValueError, match=said):
        rgb_from_compressed(CompressedImage(data=data))
    assert time.monotonic() - begin < 0.5


def test_the_limit_counts_pixels() -> None:
    message = CompressedImage(data=some.encoded(".png", 20, 30))
    assert rgb_from_compressed(message, most_pixels=600).shape == (20, 30, 3)
    with pytest.raises(ValueError, match="600 pixels, more than the 599 of .* max_image_pixels"):
        rgb_from_compressed(message, most_pixels=599)
    raw = image_message(some.picture(20, 30), "rgb8", Header())
    assert rgb_from_image(raw, most_pixels=600).shape == (20, 30, 3)
    with pytest.raises(ValueError, match="600 pixels, more than the 599 of .* max_image_pixels"):
        rgb_from_image(raw, most_pixels=599)


@pytest.mark.parametrize("name", [n for n in some.VALID if n not in (".bmp", ".webp", ".tiff")])
def test_headers_say_what_opencv_finds(name: str) -> None:
    data = some.VALID[name]
    shape = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED).shape
    found = read_header(data)
    assert (found.height, found.width) == shape[:2]
    assert found.format == ("png" if data.startswith(b"\x89PNG") else "jpeg")


@given(some.images(st.sampled_from(["mono8", "8UC1", "mono16", "rgb8"])))
def test_masks(message: Image) -> None:
    found = result_or_message(lambda: mask_from_image(message, (12, 17)), "mask", "image")
    assert found is None or (found.shape, found.dtype) == ((12, 17), bool)


@given(some.boxes(), st.sampled_from([0.0, 0.1, 1.0]), st.sampled_from([(0, 0), (1, 100_000)]))
def test_boxes(box: BoundingBox2D, padding: float, detector_hw: tuple[int, int]) -> None:
    found = result_or_message(lambda: box_from_detection(box, HW, padding, detector_hw), "bbox")
    if found is not None:
        assert np.isfinite(found).all() and (found >= 0).all() and (found <= SIDE).all()
        assert (found[2:] > found[:2]).all()


@given(some.prompts())
def test_prompts(message: Prompt) -> None:
    def segmented() -> Segments:
        prompt = prompt_from_message(message, HW, PREDICTOR.mask_logits)
        return PREDICTOR.decode(PREDICTOR.encode(np.zeros((*HW, 3), np.uint8)), [prompt])

    found = result_or_message(
        segmented, "point", "box", "mask", "labels", "a prompt needs", "image has step"
    )
    assert found is None or len(found) == 1


@given(some.depth_images())
def test_depth(message: Image) -> None:
    found = result_or_message(lambda: metres_from_image(message, HW), "depth")
    if found is not None:
        assert found.shape == HW and (np.isnan(found) | (found > 0)).all()


@given(some.camera_infos(), some.depth_images())
def test_points(info: CameraInfo, depth: Image) -> None:
    """What is made of depth and calibration is finite."""

    def made() -> Any:
        camera = camera_from_info(info).scaled(HW)
        metres = metres_from_image(depth, HW)
        mask = np.ones((SIDE - 8, SIDE - 8), bool)
        box = np.array([[4, 4, SIDE - 4, SIDE - 4]], np.float32)
        ones, logits = np.ones(1, np.float32), np.zeros((1, SIDE, SIDE), np.float32)
        segments = Segments(HW, box, (mask,), ones, ones, logits)
        return solids(segments, np.zeros((*HW, 3), np.uint8), metres, camera)

    found = result_or_message(made, "depth", "camera_info")
    for solid in found or ():
        assert np.isfinite(solid.points).all() and (solid.points[:, 2] > 0).all()
        assert len(cloud_message(Header(), [solid]).data) == 20 * len(solid.points)
