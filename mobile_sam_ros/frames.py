"""The newest images, found again by their stamp."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from time import monotonic

from sensor_msgs.msg import CompressedImage, Image

from mobile_sam_ros.conversions import nanoseconds


@dataclass(frozen=True, eq=False)
class Frame:
    """An image as it came.

    message: not converted yet: most images are never segmented.
    received: when it came, in seconds of the monotonic clock. Stamps are no measure of age: a
        bag that is played, or a camera with a clock of its own, has old ones.
    """

    message: Image | CompressedImage
    received: float = field(default_factory=monotonic)

    @property
    def stamp(self) -> int:
        """The stamp, in nanoseconds."""
        return nanoseconds(self.message.header.stamp)


class FrameRing:
    """The last `capacity` frames. Used by the executor's thread alone."""

    def __init__(self, capacity: int) -> None:
        self._frames: deque[Frame] = deque(maxlen=capacity)

    def add(self, frame: Frame) -> None:
        """Keeps a frame; the oldest one goes.

        A stamp far behind the newest one means that time was set back, as when a bag begins
        again: then the frames so far say nothing any more.
        """
        if self._frames and frame.stamp < min(kept.stamp for kept in self._frames):
            self._frames.clear()
        self._frames.append(frame)

    def newest(self) -> Frame | None:
        """Returns the frame that came last."""
        return self._frames[-1] if self._frames else None

    def find(self, stamp: int, slop: int) -> Frame | None:
        """Returns the frame of `stamp`, or the nearest one at most `slop` away (nanoseconds)."""
        nearest = min(self._frames, key=lambda frame: abs(frame.stamp - stamp), default=None)
        if nearest is None or abs(nearest.stamp - stamp) > slop:
            return None
        return nearest

    def may_come(self, stamp: int) -> bool:
        """Returns whether a frame of `stamp` can still come: it is newer than all there are."""
        newest = self.newest()
        return newest is None or stamp > newest.stamp
