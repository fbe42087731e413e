"""Ctrl-C as launched processes get it: twice."""

from __future__ import annotations

import signal
from types import FrameType


def interrupt_once() -> None:
    """Makes the first SIGINT raise KeyboardInterrupt, and those after it nothing.

    On a terminal Ctrl-C reaches a process that was launched directly and again from `ros2 launch`;
    the second one would break off the orderly end that the first began. Call it before
    `rclpy.init`, whose own handler calls this one.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(number, lambda *_: None)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
