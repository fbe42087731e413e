"""Messages to arrays and back. Everything that can be wrong with a message is said here."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mobile_sam_ros.message_classes import ClassOf, ros_class

if TYPE_CHECKING:  # messages of a bag are read as well, where there is no ROS
    from builtin_interfaces.msg import Time
    from sensor_msgs.msg import CompressedImage, Image, RegionOfInterest
    from std_msgs.msg import Header
    from vision_msgs.msg import BoundingBox2D

from mobile_sam.image_headers import read_header
from mobile_sam.quoting import first_line, quoted

MOST_PIXELS = 50_000_000
"""Of an image, unless a parameter says otherwise: 8K has 33 million."""
_LONGEST_SIDE = 32_767  # OpenCV counts pixels of a side in 16 bits here and there
_HUGE = 1e30  # brightness beyond which a number means nothing

# Encodings read here: channels, and the conversion to RGB.
_PLAIN: dict[str, tuple[int, int | None]] = {
    "rgb8": (3, None),
    "8UC3": (3, cv2.COLOR_BGR2RGB),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "8UC4": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
    "8UC1": (1, cv2.COLOR_GRAY2RGB),
}


# A plane of brightness, and below it one of colour at half the resolution.
_TWO_PLANES = {"nv12": cv2.COLOR_YUV2RGB_NV12, "nv21": cv2.COLOR_YUV2RGB_NV21}
# Bytes a pixel of all other encodings of sensor_msgs/image_encodings.
_PIXEL_BYTES = (
    (re.compile(r"(?:mono|bayer_....)(8|16)"), 1),
    (re.compile(r"(?:rgb|bgr)(8|16)"), 3),
    (re.compile(r"(?:rgb|bgr)a(8|16)"), 4),
    (re.compile(r"(8|16|32|64)[USF]C([1-4])"), 1),
)


class BadMessage(ValueError):
    """A message that cannot be used; the text names the field and its value."""


def nanoseconds(stamp: Time) -> int:
    """Returns a stamp as one number."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


# --- Images in ------------------------------------------------------------------------------


def check_size(height: int, width: int, most_pixels: int = MOST_PIXELS) -> None:
    """Checks what an image claims before memory is taken for it.

    Raises:
        BadMessage: no pixels, or too many.
    """
    if height == 0 or width == 0:
        raise BadMessage(f"image of size {width}x{height} has no pixels")
    if max(height, width) > _LONGEST_SIDE:
        raise BadMessage(
            f"image of size {width}x{height} has a side of more than {_LONGEST_SIDE} pixels"
        )
    if height * width > most_pixels:
        raise BadMessage(
            f"image of size {width}x{height} has {height * width} pixels, more than the "
            f"{most_pixels} of the parameter max_image_pixels"
        )


def rgb_from_message(
    message: Image | CompressedImage, most_pixels: int = MOST_PIXELS
) -> NDArray[np.uint8]:
    """Returns a raw or compressed image as uint8 (H, W, 3), RGB.

    Raises:
        BadMessage: see the two below.
    """
    read = rgb_from_compressed if hasattr(message, "format") else rgb_from_image
    return read(message, most_pixels)


def rgb_from_image(message: Image, most_pixels: int = MOST_PIXELS) -> NDArray[np.uint8]:
    """Returns an image as uint8 (H, W, 3), RGB.

    The common 8-bit encodings are read here, without a copy where possible; all others by
    cv_bridge where there is one, else by rosbags-image.

    Raises:
        BadMessage: no pixels or more than `most_pixels`, an unknown encoding, or fewer data than
            height and step say.
    """
    check_size(message.height, message.width, most_pixels)
    if message.encoding in _TWO_PLANES:
        return _rgb_from_planes(message)
    if message.encoding not in _PLAIN:
        return _convert_elsewhere(_without_padding(message))
    channels, code = _PLAIN[message.encoding]
    pixels = _rows(message, channels)
    return pixels if code is None else cv2.cvtColor(pixels, code).astype(np.uint8, copy=False)


def _rows(message: Image, channels: int) -> NDArray[np.uint8]:
    """Returns an 8-bit image without the padding of its rows, uint8 (H, W, channels)."""
    row = message.width * channels
    if message.step < row:
        raise BadMessage(
            f"image has step {message.step}, but {message.width} pixels of {message.encoding} "
            f"are {row} bytes"
        )
    _check_length(message)
    data = np.frombuffer(message.data, np.uint8, message.height * message.step)
    return data.reshape(message.height, message.step)[:, :row].reshape(
        message.height, message.width, channels
    )


def _check_length(message: Image) -> None:
    needed = message.height * message.step
    if len(message.data) < needed:
        raise BadMessage(
            f"image of encoding {message.encoding} has {len(message.data)} bytes of data, but "
            f"height {message.height} times step {message.step} is {needed}"
        )


def _rgb_from_planes(message: Image) -> NDArray[np.uint8]:
    height, width, step = message.height, message.width, message.step
    needed = height * 3 // 2 * step
    if height % 2 or width % 2 or step < width or len(message.data) < needed:
        raise BadMessage(
            f"image of encoding {message.encoding} has size {width}x{height}, step {step} and "
            f"{len(message.data)} bytes of data; it needs even sides and one and a half times "
            "height rows of at least width bytes"
        )
    rows = np.frombuffer(message.data, np.uint8, needed).reshape(-1, step)[:, :width]
    code = _TWO_PLANES[message.encoding]
    return cv2.cvtColor(np.ascontiguousarray(rows), code).astype(np.uint8, copy=False)


def _without_padding(message: Image) -> Any:
    """Returns an image whose rows have no padding, which not every library knows."""
    row = message.width * _pixel_bytes(message.encoding)
    if not row:
        raise BadMessage(f"image has encoding {quoted(message.encoding)}, which is not known")
    if message.step < row:
        raise BadMessage(
            f"image has step {message.step}, but {message.width} pixels of {message.encoding} "
            f"are {row} bytes"
        )
    _check_length(message)
    if message.step == row:
        return message
    rows = np.frombuffer(message.data, np.uint8, message.height * message.step)
    tight = np.ascontiguousarray(rows.reshape(message.height, message.step)[:, :row])
    return SimpleNamespace(
        header=message.header,
        height=message.height,
        width=message.width,
        encoding=message.encoding,
        is_bigendian=message.is_bigendian,
        step=row,
        data=tight,
    )


def _pixel_bytes(encoding: str) -> int:
    """Returns the bytes of a pixel; 0 if the encoding is not known."""
    if encoding.startswith(("yuv422", "uyvy", "yuyv")):
        return 2
    for pattern, channels in _PIXEL_BYTES:
        found = pattern.fullmatch(encoding)
        if found:
            bits, *more = (int(text) for text in found.groups())
            return bits // 8 * (more[0] if more else channels)
    return 0


def _convert_elsewhere(message: Any) -> NDArray[np.uint8]:
    try:
        image = _bridge(message)
    except Exception as error:  # each library has errors of its own for what it does not know
        # OpenCV's have several lines, of which one says what is wrong.
        cause = getattr(error, "err", "") or first_line(error)
        raise BadMessage(
            f"image of size {message.width}x{message.height} has encoding "
            f"{quoted(message.encoding)}: {cause}"
        ) from error
    if image.dtype != np.uint8:
        image = _stretched(image)
    if image.ndim == 2 or image.shape[2] == 1:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)  # type: ignore[return-value]
    if image.shape[2] == 2:
        raise BadMessage(
            f"image has encoding {quoted(message.encoding)}: two channels are no colours"
        )
    return cv2.cvtColor(image[..., :3], cv2.COLOR_BGR2RGB)  # type: ignore[return-value]


def _stretched(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Returns what is deeper than a display, and has no scale of its own, from darkest to
    lightest; black where it is not finite, as depth that is not known."""
    with np.errstate(over="ignore", invalid="ignore"):
        wide = image.astype(np.float32)
    known = np.abs(wide) < _HUGE
    wide[~known] = 0
    low, high = (float(limit(wide[known])) if known.any() else 0.0 for limit in (np.min, np.max))
    if high > low:
        wide = (wide - low) / (high - low) * 255
    return np.where(known & (high > low), wide, 0).astype(np.uint8)


def _bridge(message: Any) -> NDArray[Any]:
    """Returns an image in BGR or as it is, by the library that is there."""
    mono = message.encoding.startswith(("mono", "16UC1", "32FC1", "64FC1"))
    wanted = None if mono else "bgr8"
    try:
        from cv_bridge import CvBridge
    except ImportError:
        from rosbags.image import message_to_cvimage

        return message_to_cvimage(message, wanted)
    return CvBridge().imgmsg_to_cv2(message, wanted or "passthrough")


def rgb_from_compressed(
    message: CompressedImage, most_pixels: int = MOST_PIXELS
) -> NDArray[np.uint8]:
    """Returns a JPEG or PNG image as uint8 (H, W, 3), RGB.

    Raises:
        BadMessage: it is neither, damaged, or claims more than `most_pixels`, which is seen before
            it is decoded.
    """
    what = f"compressed image of format {quoted(message.format)} with {len(message.data)} bytes"
    data = bytes(message.data)
    try:
        header = read_header(data)
        check_size(header.height, header.width, most_pixels)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except (ValueError, cv2.error) as error:
        raise BadMessage(f"{what} cannot be read: {error}") from error
    if image is None:
        raise BadMessage(f"{what} cannot be read: its {header.format} data are damaged")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def mask_from_image(message: Image, image_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """Returns the mask of a prompt, bool (H, W).

    Raises:
        BadMessage: not mono8, or not of the image's size.
    """
    if message.encoding not in ("mono8", "8UC1"):
        raise BadMessage(f"mask has encoding {quoted(message.encoding)}, not mono8")
    if (message.height, message.width) != image_hw:
        raise BadMessage(
            f"mask has size {message.width}x{message.height}, the image {image_hw[1]}x{image_hw[0]}"
        )
    return _rows(message, 1)[..., 0] > 0


def crop_of(segment: Any) -> NDArray[np.bool_]:
    """Returns the mask of a mobile_sam_ros/msg/Segment within its region, bool (h, w)."""
    mask = segment.mask
    rows = np.frombuffer(mask.data, np.uint8, mask.height * mask.step)
    return rows.reshape(mask.height, mask.step)[:, : mask.width] > 0


# --- Boxes ----------------------------------------------------------------------------------


def box_from_detection(
    box: BoundingBox2D,
    image_hw: tuple[int, int],
    padding: float = 0.0,
    detector_hw: tuple[int, int] = (0, 0),
) -> NDArray[np.float32]:
    """Returns a detection's box within the image: float32 x_min, y_min, x_max, y_max.

    Of a rotated box, the upright one around it. Each side is moved outwards by `padding` times
    the upright box's size.

    Args:
        box: in pixels of the detector's image.
        image_hw: height and width of the image.
        padding: a share of the box's size.
        detector_hw: height and width of the detector's image; 0: as the image has it.

    Raises:
        BadMessage: not finite, of no size, or wholly outside.
    """
    centre = (box.center.position.x, box.center.position.y)
    values = np.array([*centre, box.size_x, box.size_y, box.center.theta], np.float64)
    shown = f"center ({centre[0]:g}, {centre[1]:g}), size {box.size_x:g}x{box.size_y:g}"
    if not np.isfinite(values).all():
        raise BadMessage(f"bbox with {shown}, theta {box.center.theta:g} is not finite")
    if box.size_x <= 0 or box.size_y <= 0:
        raise BadMessage(f"bbox with {shown} has no inside")
    cosine, sine = abs(np.cos(box.center.theta)), abs(np.sin(box.center.theta))
    height, width = image_hw
    scale = np.array([width / (detector_hw[1] or width), height / (detector_hw[0] or height)])
    with np.errstate(over="ignore", invalid="ignore"):
        reach = 0.5 * np.array(
            [box.size_x * cosine + box.size_y * sine, box.size_x * sine + box.size_y * cosine]
        )
        middle, reach = values[:2] * scale, reach * scale * (1 + 2 * padding)
        corners = np.concatenate([middle - reach, middle + reach])
    found = np.clip(corners, 0, (width, height) * 2).astype(np.float32)
    # Written so that NaN, of numbers whose sum is infinite, is outside too.
    if not (found[2:] > found[:2]).all():
        raise BadMessage(f"bbox with {shown} lies outside of the image of {width}x{height}")
    return found


# --- Out ------------------------------------------------------------------------------------


def image_message(
    pixels: NDArray[Any], encoding: str, header: Header, class_of: ClassOf = ros_class
) -> Image:
    """Returns pixels, (H, W) or (H, W, C), uint8 or uint16, as an image with `header`."""
    pixels = np.ascontiguousarray(pixels)
    message = class_of("sensor_msgs/msg/Image")(
        header=header,
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=pixels.strides[0] if pixels.size else 0,
    )
    if pixels.size:
        # The only fast way: assigning bytes or an array checks each element.
        message.data.frombytes(memoryview(pixels).cast("B"))  # type: ignore[arg-type]
    return message


def compressed_message(
    image: NDArray[np.uint8], header: Header, quality: int, class_of: ClassOf = ros_class
) -> CompressedImage:
    """Returns an image, uint8 (H, W, 3) RGB, as JPEG of a quality of 1 to 100."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, quality))
    kind = class_of("sensor_msgs/msg/CompressedImage")
    message = kind(header=header, format="rgb8; jpeg compressed bgr8")
    message.data.frombytes(data.tobytes())
    return message


def region_message(box: NDArray[np.float32], class_of: ClassOf = ros_class) -> RegionOfInterest:
    """Returns a half-open box, float32 (4,), as a region."""
    x_min, y_min, x_max, y_max = (int(value) for value in box)
    return class_of("sensor_msgs/msg/RegionOfInterest")(
        x_offset=x_min, y_offset=y_min, width=x_max - x_min, height=y_max - y_min
    )


def bounding_box_message(box: NDArray[np.float32], class_of: ClassOf = ros_class) -> BoundingBox2D:
    """Returns a half-open box, float32 (4,), as centre and size."""
    x_min, y_min, x_max, y_max = (float(value) for value in box)
    kind = class_of("vision_msgs/msg/BoundingBox2D")
    message = kind(size_x=x_max - x_min, size_y=y_max - y_min)
    message.center.position.x = (x_min + x_max) / 2
    message.center.position.y = (y_min + y_max) / 2
    return message
