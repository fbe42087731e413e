"""The newest images, found again by their stamp; and messages that wait for their image."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from mobile_sam_ros.conversions import nanoseconds

if TYPE_CHECKING:
    from sensor_msgs.msg import CompressedImage, Image


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


class Stamped(Protocol):
    """What has a stamp, in nanoseconds."""

    @property
    def stamp(self) -> int:
        """The stamp."""


Kept = TypeVar("Kept", bound=Stamped)
Message = TypeVar("Message")


class FrameRing(Generic[Kept]):
    """The last `capacity` frames. Added to by one thread; any may look."""

    def __init__(self, capacity: int) -> None:
        self._frames: deque[Kept] = deque(maxlen=capacity)

    def add(self, frame: Kept) -> None:
        """Keeps a frame; the oldest one goes.

        A stamp far behind the newest one means that time was set back, as when a bag begins
        again: then the frames so far say nothing any more.
        """
        if self._frames and frame.stamp < min(kept.stamp for kept in self._frames):
            self._frames.clear()
        self._frames.append(frame)

    def clear(self) -> None:
        """Keeps none of them any more."""
        self._frames.clear()

    def newest(self) -> Kept | None:
        """Returns the frame that came last."""
        frames = list(self._frames)  # at once: another thread may add meanwhile
        return frames[-1] if frames else None

    def find(self, stamp: int, slop: int) -> Kept | None:
        """Returns the frame of `stamp`, or the nearest one at most `slop` away (nanoseconds).

        Of several with the same stamp, as of a short bag that begins again, the one that came last.
        """
        newest_first = list(self._frames)[::-1]
        nearest = min(newest_first, key=lambda frame: abs(frame.stamp - stamp), default=None)
        if nearest is None or abs(nearest.stamp - stamp) > slop:
            return None
        return nearest

    def newer_than(self, stamp: int) -> int:
        """Returns how many frames there are with a later stamp."""
        return sum(frame.stamp > stamp for frame in list(self._frames))

    def may_come(self, stamp: int) -> bool:
        """Returns whether a frame of `stamp` can still come: it is newer than all there are."""
        newest = self.newest()
        return newest is None or stamp > newest.stamp


class Waiting(Generic[Message]):
    """Messages that came before their image. Those without a stamp take the next one."""

    def __init__(self, capacity: int, patience: float) -> None:
        """Keeps the last `capacity` messages, and those with a stamp for `patience` seconds."""
        self._capacity, self._patience = capacity, patience
        self._messages: list[tuple[Message, int, float]] = []  # stamp, and when it came

    def __iter__(self) -> Iterator[Message]:
        return iter([item[0] for item in self._messages])

    def clear(self) -> None:
        """Keeps none of them any more."""
        self._messages.clear()

    def put(self, message: Message, stamp: int) -> list[Message]:
        """Keeps a message; returns those that wait no longer for it."""
        self._messages.append((message, stamp, monotonic()))
        lost = self._messages[: -self._capacity]
        del self._messages[: -self._capacity]
        return [item[0] for item in lost]

    def take(self, stamp: int, slop: int) -> list[Message]:
        """Returns the messages that waited for an image of this stamp, in their order."""
        found = [item for item in self._messages if not item[1] or abs(item[1] - stamp) <= slop]
        self._messages = [item for item in self._messages if item not in found]
        return [item[0] for item in found]

    def overdue(self) -> list[Message]:
        """Returns the messages that waited in vain."""
        since = monotonic() - self._patience
        lost = [item for item in self._messages if item[1] and item[2] < since]
        self._messages = [item for item in self._messages if item not in lost]
        return [item[0] for item in lost]
