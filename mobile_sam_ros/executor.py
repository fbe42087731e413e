"""An executor that goes on: what a callback raises loses its message, never the node; and a flood
of messages leaves the worker its time."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import Any

from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

from mobile_sam.quoting import first_line

_MOST_CALLBACKS = 500  # a second; four cameras at 30 Hz with detections are 240
_BURST_SECONDS = 0.1  # for which it may be more


class SteadyExecutor(SingleThreadedExecutor):
    """Calls back on one thread, at a limited rate.

    Of a topic that gets more, DDS drops the oldest messages, at no cost: here, each of them would
    take the interpreter's lock from the worker.
    """

    def __init__(self, complain: Callable[[str], None], context: Context | None = None) -> None:
        """Tells `complain` what callbacks raise."""
        super().__init__(context=context)
        self._complain = complain
        self._next = time.monotonic()  # when the next callback is due at that rate

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Makes one callback."""
        try:
            super().spin_once(timeout_sec)
        except ExternalShutdownException:
            raise
        except Exception:
            if self.context.ok():  # else it ended under the callback
                self._complain(f"a callback failed:\n{traceback.format_exc()}")
        now = time.monotonic()
        self._next = max(self._next, now - _BURST_SECONDS) + 1 / _MOST_CALLBACKS
        if self._next > now:
            time.sleep(self._next - now)

    # Where a message cannot be converted (with ROS_PYTHON_CHECK_FIELDS=1, as always on Humble, the
    # largest float32 is one), rclpy raises between beginning and ending its callback group's work,
    # and nothing of the node is ever called back again. Taken for none, it is only lost.

    def _take_subscription(self, sub: Any) -> Any:
        return self._taken(super()._take_subscription, sub, sub.topic_name)

    def _take_service(self, srv: Any) -> Any:
        return self._taken(super()._take_service, srv, srv.srv_name)

    def _taken(self, take: Callable[[Any], Any], entity: Any, name: str) -> Any:
        try:
            return take(entity)
        except Exception as error:
            if self.context.ok():
                self._complain(f"{name}: a message that cannot be read: {first_line(error)}")
            return None
