"""Being told to end: by Ctrl-C, which launched processes get twice, or by SIGTERM."""

from __future__ import annotations

import signal
from types import FrameType


def interrupt_once() -> None:
    """Makes the first SIGINT or SIGTERM raise KeyboardInterrupt, and those after it nothing.

    On a terminal Ctrl-C reaches a process that was launched directly and again from `ros2 launch`;
    the second one would break off the orderly end that the first began. And of SIGTERM rclpy's own
    handler only tells its executors: what lasts before they spin, as a download, would go on. Call
    it before `rclpy.init`, whose own handlers call this one.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, lambda *_: None)
        raise KeyboardInterrupt

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, interrupt)
