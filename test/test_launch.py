"""The launch files in the real `launch` and `launch_ros`, on machines that have them."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

launch = pytest.importorskip("launch", reason="launch is not on PyPI; a distribution has it")
pytest.importorskip("launch_ros", reason="launch_ros is not on PyPI; a distribution has it")

FILES = sorted((Path(__file__).resolve().parent.parent / "launch").glob("*.launch.py"))


def description(path: Path) -> launch.LaunchDescription:
    """What a launch file describes."""
    spec = importlib.util.spec_from_file_location(path.name.replace(".", "_"), path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate_launch_description()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_argument_has_a_description(path: Path) -> None:
    arguments = description(path).get_launch_arguments()
    assert len(arguments) > 5
    for argument in arguments:
        assert argument.description.endswith("."), argument.name


def test_the_node_starts_and_ends_with_control_c() -> None:
    process = subprocess.Popen(
        ["ros2", "launch", "mobile_sam_ros", "sam.launch.py", "namespace:=robot", "image:=/cam/raw",
         "device:=cpu"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ,
    )  # fmt: skip
    assert process.stdout is not None
    said = ""
    while "waiting for images on /cam/raw" not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    assert "[robot.sam]" in said
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=20)
    assert time.monotonic() - begin < 5  # the node's 2 s, and launch itself
    assert "process has finished cleanly" in rest
