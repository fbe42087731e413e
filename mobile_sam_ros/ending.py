"""The end of a process: it is told to by Ctrl-C or SIGTERM, and leaves the graph."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from collections.abc import Iterable
from types import FrameType
from typing import NoReturn

import rclpy
from rclpy.node import Node

_LEAVING_SECONDS = 1.4


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
        # What was being made at that moment, such as a task of rclpy, stays half made, and some of
        # that cannot be deleted in silence.
        sys.unraisablehook = lambda _: None
        raise KeyboardInterrupt

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, interrupt)


def end_process(nodes: Iterable[Node], status: int) -> NoReturn:
    """Takes the nodes off the graph and ends the process with the exit status, whatever its other
    threads do.

    A node that is not destroyed stands in others' graphs until DDS misses it, which takes Fast DDS
    20 s. Its destruction has no end, though, if Fast DDS takes another process's endpoint in at
    that moment (https://github.com/eProsima/Fast-DDS/issues/6513): no Python runs then, so it is
    faulthandler's own thread that ends the process, with status 1.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    faulthandler.dump_traceback_later(_LEAVING_SECONDS, exit=True)
    for node in nodes:
        node.destroy_node()
    rclpy.try_shutdown()
    # A model call cannot be interrupted, and the interpreter must not be taken down around it; nor
    # is there time to take torch down, during which a second Ctrl-C would count as a failure.
    os._exit(status)
