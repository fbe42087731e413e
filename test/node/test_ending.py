"""The end of a process, also when DDS or the model does not let go of it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from failing_node import HANGING
from faults import cornered, live
from graph import box_detection, detections
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter

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


INTERRUPTED = """
import os
import signal
from mobile_sam_ros.ending import interrupt_once

class Task:
    def __init__(self):
        os.kill(os.getpid(), signal.SIGINT)
        self.result = None

    def __del__(self):
        print(self.result)

interrupt_once()
try:
    Task()
except KeyboardInterrupt:
    print("interrupted")
"""


def test_what_an_interruption_leaves_half_made_says_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")


def test_a_process_that_hangs_ends_and_says_where(tmp_path: Path) -> None:
    """As one did in Fast DDS: with the interpreter's lock, so that nothing else runs."""
    with live(tmp_path / "log", "failing_node.py") as at:
        changed = Parameter("hang_timeout", value=2.0).to_parameter_msg()
        answer = at.graph.call(
            SetParameters, "/sam/set_parameters", SetParameters.Request(parameters=[changed])
        )
        assert answer.results[0].successful
        at.go_on(4.0)  # it does not end while it works
        stamp = time.time_ns()
        at.graph.images.publish(cornered(HANGING)(0, stamp))
        at.graph.detections.publish(detections(stamp, box_detection(at.box, "any")))
        begin = time.monotonic()
        assert at.node.process.wait(20) == 1
        assert 1.0 < time.monotonic() - begin < 10.0
        assert "in encode" in at.node.log.read_text()
