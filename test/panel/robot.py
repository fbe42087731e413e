"""The panel as users run it: its process, the node and a camera on real DDS, a real browser."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from graph import Peer, Process


def ros_process(module: str, log: Path, domain: int, **parameters: Any) -> subprocess.Popen[bytes]:
    """Starts a node with parameters."""
    command = [sys.executable, "-m", module, "--ros-args"]
    for name, value in parameters.items():
        command += ["-p", f"{name}:={value}"]
    environ = os.environ | {"ROS_DOMAIN_ID": str(domain), "RCUTILS_COLORIZED_OUTPUT": "0"}
    with log.open("w") as file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environ)


@contextmanager
def panel(folder: Path, domain: int, **parameters: Any) -> Iterator[str]:
    """Runs a panel; yields the address that it prints."""
    log = folder / "panel.log"
    reliable = {"qos_overrides./image.subscription.reliability": "reliable"}
    process = ros_process(
        "mobile_sam_ros.panel.run", log, domain, **({"port": 0} | reliable | parameters)
    )
    try:
        end = time.monotonic() + 30
        while not (found := re.search(r"open (\S+)", log.read_text())):
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        yield found[1]
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 0, log.read_text()
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def bare_socket(address: str) -> socket.socket:
    """A WebSocket to the panel without a client, which would do what is proper."""
    place = urlsplit(address)
    connection = socket.create_connection(("127.0.0.1", place.port))
    connection.sendall(
        f"GET /socket HTTP/1.1\r\nHost: {place.netloc}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    assert b" 101 " in connection.recv(4096)
    return connection


@dataclass(frozen=True)
class Robot:
    """What runs: the node, a camera, the panel, and somebody who listens."""

    address: str
    peer: Peer
    node: Process
