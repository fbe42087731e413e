"""Objects in three dimensions: their points, and the boxes around them.

Coordinates are metres in the camera's optical frame (REP 103): x to the right, y down, z forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

import mobile_sam
from mobile_sam_ros.depth import Camera
from mobile_sam_ros.message_classes import ClassOf, ros_class

if TYPE_CHECKING:
    from sensor_msgs.msg import PointCloud2
    from std_msgs.msg import Header

# At the edge of an object a depth camera mixes it with what is behind: such points fly between
# the two. They are where the depth is far from its neighbourhood's.
_RIM = 1  # pixels of the mask's edge that are left out
_FLYING = 0.02  # metres from the neighbourhood's median,
_FLYING_SHARE = 0.03  # or this share of the depth
_GAP = 0.05  # metres without a point, or this share of the depth, end an object in depth
_FEWEST = 8  # points that make an object

_POINT = np.dtype(
    {
        "names": ["x", "y", "z", "rgb", "label"],
        "formats": [np.float32, np.float32, np.float32, np.uint32, np.uint32],
        "offsets": [0, 4, 8, 12, 16],
        "itemsize": 20,
    }
)
# Of the fields; rgb as RViz and PCL have it: the bytes of 0x00RRGGBB.
_TYPES = ("FLOAT32", "FLOAT32", "FLOAT32", "FLOAT32", "UINT32")


@dataclass(frozen=True, eq=False)
class Solid:
    """An object's visible surface.

    label: its value in the label image.
    points: float32 (P, 3).
    colours: uint8 (P, 3), RGB.
    """

    label: int
    points: NDArray[np.float32]
    colours: NDArray[np.uint8]

    @property
    def minimum(self) -> NDArray[np.float32]:
        """Of the upright box around it, x, y, z."""
        return self.points.min(axis=0)

    @property
    def maximum(self) -> NDArray[np.float32]:
        """Of the upright box around it, x, y, z."""
        return self.points.max(axis=0)

    @property
    def centre(self) -> NDArray[np.float32]:
        """Of the upright box around it, x, y, z."""
        return (self.minimum + self.maximum) * np.float32(0.5)

    @property
    def size(self) -> NDArray[np.float32]:
        """Of the upright box around it, x, y, z."""
        return self.maximum - self.minimum


def solids(
    segments: mobile_sam.Segments,
    image: NDArray[np.uint8],
    depth: NDArray[np.float32],
    camera: Camera,
) -> list[Solid]:
    """Returns the objects of which enough depth is known.

    Args:
        segments: N objects.
        image: uint8 (H, W, 3), RGB.
        depth: float32 (H, W), metres, NaN where it is not known.
        camera: of the image.
    """
    found = []
    for i, crop in enumerate(segments.crops):
        x0, y0, x1, y1 = segments.boxes[i].astype(int)
        if not crop.size:
            continue
        window = (slice(y0, y1), slice(x0, x1))
        z = depth[window]
        rows, columns = np.nonzero(_inside(crop) & _steady(z))
        if len(rows) < _FEWEST:
            continue
        z = z[rows, columns]
        together = _together(z)
        rows, columns, z = rows[together], columns[together], z[together]
        x = (columns + (x0 - camera.cx)) * z / camera.fx
        y = (rows + (y0 - camera.cy)) * z / camera.fy
        points = np.stack([x, y, z], axis=1).astype(np.float32)
        found.append(Solid(i + 1, points, image[window][rows, columns]))
    return found


def _inside(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Returns a mask without its rim; one that would vanish stays as it is."""
    framed = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(0,))
    kernel = np.ones((2 * _RIM + 1, 2 * _RIM + 1), np.uint8)
    smaller = cv2.erode(framed, kernel)[1:-1, 1:-1] > 0
    return smaller if smaller.any() else mask


def _steady(depth: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Returns where depth is known and near that of its neighbourhood, bool (h, w)."""
    known = np.isfinite(depth)
    # A hole must not pull the median: what is not known counts as infinitely far.
    filled = np.where(known, depth, np.float32(np.finfo(np.float32).max))
    median = cv2.medianBlur(filled, 5)
    with np.errstate(over="ignore"):
        near = np.abs(filled - median) <= np.maximum(_FLYING, _FLYING_SHARE * filled)
    return known & near


def _together(depth: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Returns which of some depths, (P,), hang together with their median, without a gap.

    A mask that reaches over the object's edge has some of the wall behind in it, too much for
    single pixels that fly.
    """
    median = float(np.median(depth))
    width = max(_GAP, _GAP * median)
    low = float(depth.min())
    slices = ((depth - low) / width).astype(np.int64)
    occupied = np.bincount(slices) > 0
    middle = int((median - low) / width)
    # With an even number the median may lie between two: it counts as occupied.
    first = middle - int(np.argmin(np.append(occupied[:middle][::-1], False)))
    last = middle + int(np.argmin(np.append(occupied[middle + 1 :], False)))
    return (slices >= first) & (slices <= last)


def cloud_message(
    header: Header, objects: Sequence[Solid], class_of: ClassOf = ros_class
) -> PointCloud2:
    """Returns the points of all objects as one cloud: x, y, z, rgb, label."""
    count = sum(len(solid.points) for solid in objects)
    cloud = np.empty(count, _POINT)
    begin = 0
    for solid in objects:
        part = cloud[begin : begin + len(solid.points)]
        part["x"], part["y"], part["z"] = solid.points.T
        red, green, blue = solid.colours.astype(np.uint32).T
        part["rgb"] = red << 16 | green << 8 | blue
        part["label"] = solid.label
        begin += len(solid.points)
    field = class_of("sensor_msgs/msg/PointField")
    message = class_of("sensor_msgs/msg/PointCloud2")(
        header=header,
        height=1,
        width=count,
        fields=[
            field(
                name=name,
                offset=int(_POINT.fields[name][1]),  # type: ignore[index]
                datatype=getattr(field, kind),
                count=1,
            )
            for name, kind in zip(_POINT.names or (), _TYPES, strict=True)
        ],
        is_bigendian=False,
        point_step=_POINT.itemsize,
        row_step=_POINT.itemsize * count,
        is_dense=True,
    )
    message.data.frombytes(cloud.tobytes())
    return message
