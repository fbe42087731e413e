"""Messages of another topic that belong to an image, found by their stamps.

Both topics are read along, once, so that a long bag needs no more memory than a short one. In a
bag a detection comes after its image, by the detector's latency; or before it, if the image was on
its way for longer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class Moment:
    """A message and its times.

    log: when it was recorded, nanoseconds.
    stamp: of its header, nanoseconds.
    """

    log: int
    stamp: int
    message: Any


class Companions:
    """The messages of a topic, each handed out to the one image that it belongs to, if any."""

    def __init__(
        self,
        messages: Iterator[Moment],
        slop: int,
        reach: int,
        lose: Callable[[Moment], None] = lambda moment: None,
    ) -> None:
        """Reads one message.

        Args:
            messages: in the order of their log times.
            slop: nanoseconds that the stamps may differ by.
            reach: nanoseconds of log time, before and after its own, in which an image's
                companions are looked for.
            lose: called with each message that belongs to no image.
        """
        self._messages, self._lose = messages, lose
        self._slop, self._reach = slop, reach
        self._ahead: Moment | None = next(messages, None)
        self._waiting: list[Moment] = []

    def of(self, image: Moment, following: Moment | None) -> list[Moment]:
        """Returns the messages of an image, those with the nearest stamps first.

        A message without a stamp is of the newest image at its time.

        Args:
            image: the images come in their order.
            following: the image after it, None if it is the last one. What is nearer to that one is
                left for it.
        """
        while self._ahead is not None and self._ahead.log <= image.log + self._reach:
            # Never kept: of a part of a bag, or after a gap, much lies before the image.
            if self._ahead.log < image.log - self._reach:
                self._lose(self._ahead)
            else:
                self._waiting.append(self._ahead)
            self._ahead = next(self._messages, None)
        own = [moment for moment in self._waiting if self._belongs(moment, image, following)]
        left = [moment for moment in self._waiting if moment not in own]
        self._waiting = [moment for moment in left if moment.log >= image.log - self._reach]
        for moment in left:
            if moment not in self._waiting:
                self._lose(moment)
        return sorted(own, key=lambda moment: abs(moment.stamp - image.stamp))

    def nearest(self, image: Moment) -> int | None:
        """Returns the least difference between the stamp of an image and those beyond the slop, in
        nanoseconds; None if there are none within its reach."""
        differences = (abs(moment.stamp - image.stamp) for moment in self._waiting if moment.stamp)
        return min((value for value in differences if value > self._slop), default=None)

    def close(self) -> None:
        """Loses those that wait in vain, after the last image."""
        for moment in self._waiting:
            self._lose(moment)
        self._waiting = []

    def _belongs(self, moment: Moment, image: Moment, following: Moment | None) -> bool:
        if not moment.stamp:
            return image.log <= moment.log and (following is None or moment.log < following.log)
        difference = abs(moment.stamp - image.stamp)
        if difference > self._slop:
            return False
        return following is None or difference <= abs(moment.stamp - following.stamp)
