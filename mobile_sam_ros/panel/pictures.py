"""What a viewer gets to see: an image, and on it the objects of that very image."""

from __future__ import annotations

import json
import secrets
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from threading import Lock

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image

from mobile_sam.overlay import label_image, palette
from mobile_sam_ros.conversions import (
    BadMessage,
    mask_from_image,
    nanoseconds,
    rgb_from_compressed,
    rgb_from_image,
)
from mobile_sam_ros.msg import Segment, SegmentArray

_STATES = {
    Segment.NOT_TRACKED: "",
    Segment.ACTIVE: "active",
    Segment.OCCLUDED: "occluded",
    Segment.LOST: "lost",
}
_JPEG_QUALITY = 80
_MOST_COLOURS = 1000
_OUTLINE = (255, 255, 255, 255)
# From anywhere, within what JavaScript's numbers hold: to a page that was open before the panel was
# started anew, none of its pictures may be one of those.
_numbers = count(secrets.randbelow(2**52) + 1)


class Colours:
    """A colour for each object, the same as long as it is there. Any thread may ask."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._lock = Lock()

    def __call__(self, id: str) -> tuple[int, int, int]:
        """Returns the colour of an object, RGB."""
        with self._lock:
            if id not in self._places and len(self._places) >= _MOST_COLOURS:
                self._places.clear()
            place = self._places.setdefault(id, len(self._places) + 1)
        red, green, blue = palette(place)[place].tolist()
        return red, green, blue


@dataclass(frozen=True, eq=False)
class Picture:
    """An image, and what was segmented in it.

    segments: None: nothing was, or it is not known.
    still: whether somebody asked for this one, rather than the camera's stream.
    number: rises from picture to picture.
    """

    image: Image | CompressedImage
    segments: SegmentArray | None = None
    still: bool = False
    number: int = field(default_factory=lambda: next(_numbers))

    @property
    def stamp(self) -> int:
        """The image's stamp, in nanoseconds."""
        return nanoseconds(self.image.header.stamp)

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """The image, uint8 (H, W, 3) RGB.

        Raises:
            BadMessage: it cannot be read.
        """
        if isinstance(self.image, CompressedImage):
            return rgb_from_compressed(self.image)
        return rgb_from_image(self.image)

    def segment(self, id: str) -> Segment | None:
        """Returns the object with an id, None if it is not in this picture."""
        segments = [] if self.segments is None else self.segments.segments
        return next((segment for segment in segments if segment.id == id), None)

    def with_objects(self, found: SegmentArray, instead_of: Collection[str]) -> Picture:
        """Returns the image with what was found in it, beside what is in this picture but for the
        objects `instead_of` which it was found."""
        before = [] if self.segments is None else self.segments.segments
        kept = [segment for segment in before if segment.id not in instead_of]
        together = SegmentArray(
            header=found.header,
            height=found.height,
            width=found.width,
            segments=[*kept, *found.segments],
        )
        return Picture(self.image, together, still=True)


class Encoder:
    """Makes of pictures what goes over the wire; each once, however many look at it."""

    def __init__(self, max_width: int) -> None:
        """Scales pictures down to `max_width` pixels; 0: never."""
        self._max_width = max_width
        self._colours = Colours()
        self._lock = Lock()
        self._last: tuple[Picture, bytes] | None = None

    def encode(self, picture: Picture) -> bytes:
        """Returns a picture for the page; any thread may call this.

        Four bytes, big-endian, say how long the JSON is that follows; then come the image as JPEG
        and the painted objects as PNG, whose lengths stand in the JSON.

        Raises:
            BadMessage: the image or a mask cannot be read.
        """
        with self._lock:
            if self._last is None or self._last[0] is not picture:
                self._last = picture, self._encode(picture)
            return self._last[1]

    def _encode(self, picture: Picture) -> bytes:
        image = picture.pixels
        height, width = image.shape[:2]
        scale = min(1.0, self._max_width / width) if self._max_width else 1.0
        size_wh = (max(1, round(width * scale)), max(1, round(height * scale)))
        segments = [] if picture.segments is None else picture.segments.segments
        shown = image if scale == 1 else cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)
        bgr = cv2.cvtColor(shown, cv2.COLOR_RGB2BGR)
        jpeg = cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY))[1].tobytes()
        colours = [self._colours(segment.id) for segment in segments]
        png = b""
        if any(segment.roi.width for segment in segments):
            painted = paint(segments, colours, (height, width), size_wh)
            png = cv2.imencode(".png", painted, (cv2.IMWRITE_PNG_COMPRESSION, 1))[1].tobytes()
        header = {
            "number": picture.number,
            "stamp": str(picture.stamp),  # beyond what JavaScript's numbers hold
            "still": picture.still,
            "width": width,
            "height": height,
            "jpeg": len(jpeg),
            "png": len(png),
            "objects": [
                describe(segment, colour) for segment, colour in zip(segments, colours, strict=True)
            ],
        }
        text = json.dumps(header).encode()
        return struct.pack(">I", len(text)) + text + jpeg + png


def describe(segment: Segment, colour: tuple[int, int, int]) -> dict[str, object]:
    """Returns what the page says about an object."""
    roi = segment.roi
    return {
        "id": segment.id,
        "name": segment.class_id,
        "box": [roi.x_offset, roi.y_offset, roi.width, roi.height],
        "area": segment.area,
        "score": segment.score,
        "predicted_iou": segment.predicted_iou,
        "stability": segment.stability,
        "state": _STATES.get(segment.state, ""),
        "age": segment.age,
        "unseen": segment.unseen,
        "confidence": segment.confidence,
        "colour": "#{:02x}{:02x}{:02x}".format(*colour),
    }


def crop(segment: Segment) -> NDArray[np.bool_]:
    """Returns an object's mask within its region, bool (h, w).

    Raises:
        BadMessage: the mask is not of the region's size.
    """
    if not segment.roi.width:
        return np.zeros((0, 0), bool)
    return mask_from_image(segment.mask, (segment.roi.height, segment.roi.width))


def paint(
    segments: Sequence[Segment],
    colours: Sequence[tuple[int, int, int]],
    image_hw: tuple[int, int],
    size_wh: tuple[int, int],
) -> NDArray[np.uint8]:
    """Returns the objects, each in its colour with an outline, and nothing where none is.

    Args:
        segments: N, of an image.
        colours: N, RGB.
        image_hw: height and width of the image.
        size_wh: width and height of what is returned.

    Returns:
        uint8 (height, width, 4), blue, green, red and alpha, as OpenCV writes it.

    Raises:
        BadMessage: a mask is not of its region's size, or the region not within the image.
    """
    boxes = np.array(
        [
            (
                segment.roi.x_offset,
                segment.roi.y_offset,
                segment.roi.x_offset + segment.roi.width,
                segment.roi.y_offset + segment.roi.height,
            )
            for segment in segments
        ],
        np.float32,
    )
    height, width = image_hw
    for segment, (_, _, x_max, y_max) in zip(segments, boxes, strict=True):
        if x_max > width or y_max > height:
            raise BadMessage(f"segment {segment.id!r} reaches out of the image of {width}x{height}")
    labels = label_image([crop(segment) for segment in segments], boxes, image_hw)
    labels = cv2.resize(labels, size_wh, interpolation=cv2.INTER_NEAREST)  # type: ignore[assignment]
    table = np.zeros((len(segments) + 1, 4), np.uint8)
    table[1:, :3] = np.array(colours, np.uint8).reshape(-1, 3)[:, ::-1]
    table[1:, 3] = 255
    painted = table[labels]
    border = cv2.morphologyEx(labels, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    painted[border & (labels > 0)] = _OUTLINE
    return painted
