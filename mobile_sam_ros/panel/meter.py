"""How many pictures come, and how long their masks take, as seen from the panel."""

from __future__ import annotations

from collections import deque
from statistics import median
from threading import Lock
from time import monotonic

_WINDOW_SECONDS = 3.0


class Meter:
    """Counts images and masks, by the monotonic clock. Any thread may call."""

    def __init__(self) -> None:
        self._images: deque[float] = deque()
        self._masks: deque[tuple[float, float]] = deque()
        self._lock = Lock()

    def image(self) -> None:
        """An image has come."""
        with self._lock:
            self._images.append(monotonic())

    def mask(self, received: float) -> None:
        """The segments of an image that came at `received` have come."""
        with self._lock:
            self._masks.append((monotonic(), monotonic() - received))

    def values(self) -> dict[str, float | None]:
        """Returns the rates over the last few seconds, and the median latency, if there is one."""
        with self._lock:
            begin = monotonic() - _WINDOW_SECONDS
            while self._images and self._images[0] < begin:
                self._images.popleft()
            while self._masks and self._masks[0][0] < begin:
                self._masks.popleft()
            latencies = [latency for _, latency in self._masks]
            return {
                "images_hz": len(self._images) / _WINDOW_SECONDS,
                "masks_hz": len(self._masks) / _WINDOW_SECONDS,
                "latency_ms": median(latencies) * 1e3 if latencies else None,
            }
