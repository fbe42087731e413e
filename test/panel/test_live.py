"""`make panel`: from nothing to the first image in a browser, and its end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import cv2
import numpy as np
import pytest


async def first_picture(address: str) -> dict:
    """The header of the first picture that the panel has."""
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(address.replace("http", "ws") + "socket") as socket:
            await socket.send_str('{"do": "next", "after": 0}')
            async for message in socket:
                if message.type == aiohttp.WSMsgType.BINARY:
                    length = int.from_bytes(message.data[:4], "big")
                    return json.loads(message.data[4 : 4 + length])
    raise AssertionError("the panel has closed the connection")


def test_a_folder_of_images_is_shown_again_and_again(tmp_path: Path) -> None:
    for i in range(2):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((96, 128, 3), 50 + 100 * i, np.uint8))
    command = [sys.executable, "-m", "mobile_sam_ros.demo.live", "--port", "0", "--rate", "5"]
    process = subprocess.Popen(
        [*command, "--video", tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={key: value for key, value in os.environ.items() if key != "ROS_DOMAIN_ID"},
    )
    try:
        said = ""
        assert process.stdout is not None
        while not (found := re.search(r"The panel: (\S+)", said)):
            line = process.stdout.readline()
            assert line, said
            said += line
        head = asyncio.run(asyncio.wait_for(first_picture(found[1]), 30))
        assert (head["width"], head["height"]) == (128, 96)
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=15)
        assert process.returncode == 0 and "All processes have ended." in rest
    finally:
        process.kill()


def test_a_video_that_is_not_there_is_said() -> None:
    command = [sys.executable, "-m", "mobile_sam_ros.demo.live", "--video", "/nowhere.mp4"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "/nowhere.mp4" in done.stderr


@pytest.mark.parametrize("wrong", [["--rate", "0"], ["--objects", "0"]])
def test_wrong_options_are_said(wrong: list[str]) -> None:
    command = [sys.executable, "-m", "mobile_sam_ros.demo.live", *wrong]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "must be positive" in done.stderr
