"""Depth of the images in a bag: the objects in three dimensions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

import mobile_sam
from mobile_sam_ros.bags.matching import Companions, Moment
from mobile_sam_ros.bags.source import SourceBag
from mobile_sam_ros.conversions import BadMessage, nanoseconds
from mobile_sam_ros.depth import camera_from_info, metres_from_image
from mobile_sam_ros.point_cloud import Solid, solids

DEPTH_TYPE, CAMERA_INFO_TYPE = "sensor_msgs/msg/Image", "sensor_msgs/msg/CameraInfo"
_REACH = 1_000_000_000  # nanoseconds that a depth image may be recorded before or after its image


class Space:
    """Reads depth and calibration along with the images, which come in their order."""

    def __init__(
        self,
        source: SourceBag,
        depth: str,
        camera_info: str,
        slop: int,
        start: int | None,
        complain: Callable[[str], None],
    ) -> None:
        """Reads one message of each.

        Args:
            source: the bag, open.
            depth: topic of depth images, registered to the images.
            camera_info: topic of the calibration.
            slop: nanoseconds that the stamp of a depth image may differ from its image's.
            start: log time of the first image at the earliest, nanoseconds; None: of the bag.
            complain: called with what is wrong with a message.

        Raises:
            BagError: a topic is not there, or not of its type.
        """
        self._depth, self._camera_info, self._complain = depth, camera_info, complain
        source.check(depth, DEPTH_TYPE)
        source.check(camera_info, CAMERA_INFO_TYPE)
        since = None if start is None else max(start - _REACH, 0)
        self._depths = Companions(_moments(source, depth, complain, since), slop, _REACH)
        self._infos = _moments(source, camera_info, complain)
        # Of images that come before it, too: a calibration may be said only once.
        self._info = self._next_info = next(self._infos, None)
        self._images = self._without_depth = 0
        self._nearest: int | None = None  # of those without depth, nanoseconds

    def objects(
        self,
        moment: Moment,
        following: Moment | None,
        image: NDArray[np.uint8],
        segments: mobile_sam.Segments,
    ) -> list[Solid] | None:
        """Returns an image's objects in three dimensions, None without depth or calibration.

        Args:
            moment: of the image.
            following: of the one after it, None for the last one.
            image: uint8 (H, W, 3), RGB.
            segments: in it.
        """
        near = self._depths.of(moment, following)
        while self._next_info is not None and self._next_info.log <= moment.log:
            self._info = self._next_info
            self._next_info = next(self._infos, None)
        self._images += 1
        if not near:
            self._without_depth += 1
            nearest = self._depths.nearest(moment)
            if nearest is not None:
                self._nearest = min(nearest, self._nearest or nearest)
        if not near or self._info is None:
            return None
        try:
            depth = metres_from_image(near[0].message, segments.image_size)
            camera = camera_from_info(self._info.message).scaled(segments.image_size)
        except BadMessage as error:
            self._complain(f"{self._depth}, {self._camera_info}: {error}")
            return None
        return solids(segments, image, depth, camera)

    def missing(self) -> list[str]:
        """Returns, as text, of how many images there were no objects in three dimensions, and
        why."""
        problems = []
        if self._without_depth:
            why = f"none was recorded within {_REACH / 1e9:g} s of them"
            if self._nearest is not None:
                why = f"the nearest stamp differs by {self._nearest / 1e9:.6f} s: --depth-slop"
            of = f"{self._without_depth} of {self._images}"
            problems.append(f"{self._depth}: no depth for {of} images, {why}")
        if self._images and self._info is None:
            problems.append(
                f"{self._camera_info}: no calibration for {self._images} of {self._images} images"
            )
        return problems


def _moments(
    source: SourceBag, topic: str, complain: Callable[[str], None], since: int | None = None
) -> Iterator[Moment]:
    decode = source.decoder(topic)
    for _, log, data in source.messages([topic], since):
        try:
            message: Any = decode(data)
            yield Moment(log, nanoseconds(message.header.stamp), message)
        except BadMessage as error:
            complain(f"{topic}: {error}")
