"""The end of a process, also when DDS does not let go of it."""

from __future__ import annotations

import subprocess
import sys
import time

PROGRAM = """
import ctypes
import rclpy
from rclpy.node import Node
from mobile_sam_ros.ending import end_process

class Stuck(Node):
    def destroy_node(self):
        ctypes.PyDLL(None).sleep(30)  # with the interpreter's lock, as rclpy does

rclpy.init()
print("leaving")
end_process([{kind}("ends")], 3)
"""


def end(kind: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """Ends a process with a node of that kind; returns it and how long it took in all."""
    begin = time.monotonic()
    command = [sys.executable, "-c", PROGRAM.format(kind=kind)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=25)
    return done, time.monotonic() - begin


def test_ends_with_the_status() -> None:
    done, _ = end("Node")
    assert (done.returncode, done.stdout, done.stderr) == (3, "leaving\n", "")


def test_ends_where_dds_does_not_return() -> None:
    done, seconds = end("Stuck")
    assert done.returncode == 1 and seconds < 20
    assert done.stdout == "leaving\n"
    assert "destroy_node" in done.stderr, "where it was stuck"
