"""Says each problem at most every few seconds, but all different problems."""

from __future__ import annotations

import re
from collections.abc import Callable
from threading import Lock
from time import monotonic

_NUMBER = re.compile(r"[-+]?\d[\d.e+-]*|\b(nan|inf)\b")
_MOST = 256


class Throttle:
    """Passes messages on. rclpy's own throttle goes by line of code: there, one bad topic would
    silence another."""

    def __init__(self, say: Callable[[str], object], period: float = 5.0) -> None:
        """Calls `say` with a message, unless one alike was said less than `period` seconds ago.

        Messages are alike if they differ in numbers only.
        """
        self._say = say
        self._period = period
        self._said: dict[str, float] = {}
        self._lock = Lock()

    def __call__(self, message: str) -> None:
        """Says `message`, or not."""
        key = _NUMBER.sub("#", message)
        now = monotonic()
        with self._lock:
            if now - self._said.get(key, -self._period) < self._period:
                return
            if len(self._said) >= _MOST:
                self._said.clear()
            self._said[key] = now
        self._say(message)
