"""Depth images and camera calibrations: from messages to metres and rays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from mobile_sam.quoting import quoted
from mobile_sam_ros.conversions import BadMessage, nanoseconds

if TYPE_CHECKING:
    from sensor_msgs.msg import CameraInfo, Image

# REP 118: metres as 32-bit floats with NaN where nothing is known, or millimetres as 16-bit
# integers with 0 there. The encoding says which, never a parameter.
_UNITS: dict[str, tuple[type, float]] = {
    "32FC1": (np.float32, 1.0),
    "16UC1": (np.uint16, 0.001),
    "mono16": (np.uint16, 0.001),
}
_FARTHEST = 1e5  # metres, beyond which a depth is none


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without distortion, in pixels of an image of `size` (height, width)."""

    fx: float
    fy: float
    cx: float
    cy: float
    size: tuple[int, int]

    def scaled(self, size: tuple[int, int]) -> Camera:
        """Returns the same camera for an image of another size."""
        down, across = size[0] / self.size[0], size[1] / self.size[1]
        # The centre of the first pixel is 0, so that the corner is at -0.5.
        cx, cy = (self.cx + 0.5) * across - 0.5, (self.cy + 0.5) * down - 0.5
        return Camera(self.fx * across, self.fy * down, cx, cy, size)


@dataclass(frozen=True)
class Calibration:
    """What `camera_info` says: the camera of the full resolution, and of what was cut out of it.

    `region` is None where nothing was.
    """

    full: Camera
    region: Camera | None = None

    def scaled(self, size: tuple[int, int]) -> Camera:
        """Returns the camera of an image of `size`, which shows the region, or else all.

        Binned or resized, so that it has the same aspect ratio.

        Raises:
            BadMessage: it has that of neither.
        """
        cameras = [camera for camera in (self.region, self.full) if camera is not None]
        # An image of just the full size is no enlarged region, whatever its aspect ratio.
        for camera in sorted(cameras, key=lambda camera: camera.size != size):
            if _is_of_shape(size, camera.size):
                return camera.scaled(size)
        sizes = " with a region of ".join(
            f"{camera.size[1]}x{camera.size[0]}" for camera in reversed(cameras)
        )
        raise BadMessage(
            f"camera_info is of {sizes}, but the image of {size[1]}x{size[0]}: another aspect ratio"
        )


def _is_of_shape(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes have the same aspect ratio, but for the rounding of one to pixels."""
    return abs(size[0] * other[1] - size[1] * other[0]) <= max(other)


def camera_from_info(message: CameraInfo) -> Calibration:
    """Returns the camera of a rectified image: by P, or by K where P is empty.

    Raises:
        BadMessage: without focal lengths or size, as of a camera that is not calibrated; or with a
            region of interest that lies outside.
    """
    p, k = message.p, message.k
    fx, fy, cx, cy = (p[0], p[5], p[2], p[6]) if p[0] else (k[0], k[4], k[2], k[5])
    if not (message.height and message.width):
        raise BadMessage(f"camera_info has size {message.width}x{message.height}")
    # A thousandth of the image's side to a thousand of them: all lenses there are.
    near, far = 1e-3 * max(message.height, message.width), 1e3 * max(message.height, message.width)
    if not (near <= fx <= far and near <= fy <= far):
        raise BadMessage(f"camera_info has focal lengths {fx:g} and {fy:g}: not calibrated?")
    if not (abs(cx) <= far and abs(cy) <= far):
        raise BadMessage(f"camera_info has its principal point at ({cx:g}, {cy:g})")
    full = Camera(fx, fy, cx, cy, (message.height, message.width))
    # In pixels of the full resolution, whatever the binning; empty is all of it.
    roi = message.roi
    size, x, y = (roi.height, roi.width), roi.x_offset, roi.y_offset
    if not all(size) or size == full.size:
        return Calibration(full)
    if y + size[0] > full.size[0] or x + size[1] > full.size[1]:
        raise BadMessage(
            f"camera_info has a roi of {size[1]}x{size[0]} at ({x}, {y}), outside of "
            f"{message.width}x{message.height}"
        )
    return Calibration(full, Camera(fx, fy, cx - x, cy - y, size))


def metres_from_image(message: Image, size: tuple[int, int]) -> NDArray[np.float32]:
    """Returns depth in metres, float32 (H, W) of `size`, NaN where it is not known.

    A depth image of another size is taken to show the same as the image, and each pixel gets the
    depth of the nearest one: a mean would lie between two objects.

    Raises:
        BadMessage: an encoding that REP 118 does not have, or fewer data than it needs.
    """
    if message.encoding not in _UNITS:
        known = ", ".join(_UNITS)
        raise BadMessage(
            f"depth has encoding {quoted(message.encoding)}, not one of {known} (REP 118)"
        )
    kind, unit = _UNITS[message.encoding]
    dtype = np.dtype(kind).newbyteorder(">" if message.is_bigendian else "<")
    row = message.width * dtype.itemsize
    if not (message.height and message.width) or message.step < row:
        raise BadMessage(f"depth has size {message.width}x{message.height} and step {message.step}")
    needed = message.height * message.step
    if len(message.data) < needed:
        raise BadMessage(
            f"depth has {len(message.data)} bytes of data, but height {message.height} times step "
            f"{message.step} is {needed}"
        )
    rows = np.frombuffer(message.data, np.uint8, needed).reshape(message.height, message.step)
    depth = np.ascontiguousarray(rows[:, :row]).view(dtype).astype(np.float32)
    if unit != 1:
        depth *= np.float32(unit)
    depth[~((depth > 0) & (depth < _FARTHEST))] = np.nan
    if depth.shape != size:
        depth = cv2.resize(depth, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return depth


@dataclass(frozen=True, eq=False)
class DepthFrame:
    """A depth image as it came; `FrameRing` keeps it by its stamp."""

    message: Image

    @property
    def stamp(self) -> int:
        """The stamp, in nanoseconds."""
        return nanoseconds(self.message.header.stamp)
