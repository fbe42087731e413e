"""Where the demo detector has its boxes from. Boxes: float32 (N, 4), half-open, x_min, y_min,
x_max, y_max in pixels."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mobile_sam.quoting import quoted
from mobile_sam_ros.conversions import BadMessage

_LABELS = {"mono8": "u1", "8UC1": "u1", "mono16": "u2", "16UC1": "u2", "32SC1": "i4"}
_SMOOTHING = (5, 5)
_THRESHOLD = 25  # squared distance from the background, in its standard deviations
_LEARNING_RATE = 1 / 300  # what rests becomes background after about 30 frames
_SURE = 255  # MOG2 says 127 for a shadow
_SPECK = np.ones((3, 3), np.uint8)
# Higher than wide: what moves in front of fixed cameras mostly stands upright, and falls apart
# into head, trunk and legs.
_GAP = np.ones((15, 7), np.uint8)
_NEAR = 4  # pixels between boxes that are taken for one object


def labels_from_image(message: Any) -> NDArray[np.uint16]:
    """Returns a label image as uint16 (H, W).

    Raises:
        BadMessage: an encoding of other things than labels, fewer data than it needs, or labels
            that are not from 0 to 65535.
    """
    if message.encoding not in _LABELS:
        raise BadMessage(
            f"label image has encoding {quoted(message.encoding)}, not one of {', '.join(_LABELS)}"
        )
    kind = np.dtype(_LABELS[message.encoding]).newbyteorder(">" if message.is_bigendian else "<")
    height, step, row = message.height, message.step, message.width * kind.itemsize
    if not height or not row or step < row or len(message.data) < height * step:
        raise BadMessage(
            f"label image of encoding {message.encoding} has size {message.width}x{height}, step "
            f"{step} and {len(message.data)} bytes of data"
        )
    rows = np.frombuffer(message.data, np.uint8, height * step).reshape(height, step)[:, :row]
    labels = np.ascontiguousarray(rows).view(kind)
    for label in (labels.min(), labels.max()):
        if not 0 <= label <= np.iinfo(np.uint16).max:
            raise BadMessage(f"label image of encoding {message.encoding} has label {label}")
    return labels.astype(np.uint16, copy=False)


def label_boxes(labels: NDArray[np.uint16], min_area: int) -> dict[int, NDArray[np.float32]]:
    """Returns the box around each label that has at least `min_area` pixels.

    An object that is hidden, or outside of the image, has none.
    """
    boxes = {}
    for label in np.flatnonzero(np.bincount(labels.ravel())[1:] >= max(min_area, 1)) + 1:
        x, y, width, height = cv2.boundingRect((labels == label).astype(np.uint8))
        boxes[int(label)] = np.array([x, y, x + width, y + height], np.float32)
    return boxes


class MotionDetector:
    """Finds what moves in front of a fixed camera, by background subtraction (MOG2)."""

    def __init__(self, min_area: int = 150, warm_up: int = 10) -> None:
        """Makes a detector that has seen nothing yet.

        Args:
            min_area: least number of moving pixels in a box.
            warm_up: frames to learn the background from, without detections.
        """
        self._min_area = min_area
        self._warm_up = warm_up
        self._forget((0, 0))

    def _forget(self, image_hw: tuple[int, int]) -> None:
        self._image_hw = image_hw
        self._seen = 0
        self._background = cv2.createBackgroundSubtractorMOG2(varThreshold=_THRESHOLD)

    def find(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Returns the boxes (N, 4) in the next image and their scores (N,).

        The score is the share of the box that moves. An image of another size than the last one
        is taken for another camera's.

        Args:
            image: uint8 (H, W, 3).
        """
        if image.shape[:2] != self._image_hw:
            self._forget((image.shape[0], image.shape[1]))
        self._seen += 1
        warming = self._seen <= self._warm_up
        # By itself MOG2 goes on learning fast for long, and takes what moves slowly for at rest.
        rate = -1 if warming else _LEARNING_RATE
        moving = self._background.apply(cv2.GaussianBlur(image, _SMOOTHING, 0), learningRate=rate)
        if warming:
            return np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
        surely = (moving == _SURE).astype(np.uint8)
        surely = cv2.morphologyEx(surely, cv2.MORPH_OPEN, _SPECK).astype(np.uint8, copy=False)
        closed = cv2.morphologyEx(surely, cv2.MORPH_CLOSE, _GAP)
        _, _, blobs, _ = cv2.connectedComponentsWithStats(closed)
        x, y, width, height = (blobs[1:, column] for column in range(4))  # 0: the background
        boxes = merged(np.stack([x, y, x + width, y + height], axis=1).astype(np.float32), _NEAR)
        areas = np.array([_inside(surely, box).sum() for box in boxes], np.float32)
        keep = areas >= self._min_area
        boxes, areas = boxes[keep], areas[keep]
        sides = boxes[:, 2:] - boxes[:, :2]
        return boxes, areas / sides.prod(axis=1)


def _inside(pixels: NDArray[np.uint8], box: NDArray[np.float32]) -> NDArray[np.uint8]:
    x_min, y_min, x_max, y_max = box.astype(int)
    return pixels[y_min:y_max, x_min:x_max]


def merged(boxes: NDArray[np.float32], near: float) -> NDArray[np.float32]:
    """Returns the boxes with those that overlap, or have a gap of less than `near`, made one.

    Repeated until all that are left lie apart.
    """
    left = [box for box in boxes]
    done: list[NDArray[np.float32]] = []
    while left:
        box = left.pop()
        touching = [i for i, other in enumerate(left) if _gap(box, other) < near]
        if not touching:
            done.append(box)
            continue
        group = np.stack([box, *(left.pop(i) for i in reversed(touching))])
        grown = np.concatenate([group[:, :2].min(axis=0), group[:, 2:].max(axis=0)])
        # What was apart from its parts may touch it now.
        left += [*done, grown]
        done = []
    return np.array(done[::-1], np.float32).reshape(-1, 4)


def _gap(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Returns the larger one of the horizontal and the vertical gap; negative if they overlap."""
    return float(np.maximum(a[:2] - b[2:], b[:2] - a[2:]).max())
