"""Says each problem at most every few seconds, and of different problems all but a flood."""

from __future__ import annotations

import re
from collections.abc import Callable
from threading import Lock
from time import monotonic

_NUMBER = re.compile(r"[-+]?\d[\d.e+-]*|\b(nan|inf)\b")
_MOST = 20  # different ones a period: somebody has to read them
_LONGEST = 4000  # characters, enough for a traceback


class Throttle:
    """Passes messages on. rclpy's own throttle goes by line of code: there, one bad topic would
    silence another."""

    def __init__(self, say: Callable[[str], object], period: float = 5.0) -> None:
        """Calls `say` with a message, unless one alike was said less than `period` seconds ago, or
        too many were.

        Messages are alike if they differ in numbers only.
        """
        self._say = say
        self._period = period
        self._said: dict[str, float] = {}
        self._lock = Lock()

    def __call__(self, message: str) -> None:
        """Says `message`, or not."""
        message = message if len(message) <= _LONGEST else f"{message[:_LONGEST]} …"
        key = _NUMBER.sub("#", message)
        now = monotonic()
        with self._lock:
            # Oldest first, as said.
            while self._said and now - next(iter(self._said.values())) >= self._period:
                del self._said[next(iter(self._said))]
            if key in self._said or len(self._said) > _MOST:
                return
            self._said[key] = now
            if len(self._said) > _MOST:
                message = f"more than {_MOST} different problems in {self._period:g} s: not said"
        self._say(message)
