"""Short versions of what `benchmarks/soak.py` and `kills.py` do for long."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest
from graph import running
from kills import MOST_SECONDS, SIGNALS, ends
from rclpy.node import Node
from sensor_msgs.msg import Image

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
MOST_GROWTH = 40.0  # MB; so short after its start, not everything is there that will be


@pytest.mark.slow
def test_nothing_grows(ros: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import soak

    samples = list(soak.soak(0.15, 15.0, 0.1, 0.05, ["backend:=torch"]))
    first, last = samples[0], samples[-1]
    assert len(samples) == 4 and sum(len(s.milliseconds) for s in samples) > 10
    assert last.megabytes - first.megabytes < MOST_GROWTH
    assert last.threads <= first.threads and last.files <= first.files


def test_a_listener_that_stands_still_is_replaced(
    ros: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As Fast DDS once stood still at a subscription; the one that takes its place does listen."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import soak

    listener, node = soak.Listener(), Node("overlay")
    try:
        overlay = node.create_publisher(Image, "/sam/overlay", 1)
        os.kill(listener._process.pid, signal.SIGSTOP)
        listener.order(wanted=False)
        assert not capfd.readouterr().err, "it may take its time"
        listener.order(wanted=True)
        assert "the listener stands still" in capfd.readouterr().err
        end = time.monotonic() + 30
        while not overlay.get_subscription_count():
            assert time.monotonic() < end
            time.sleep(0.1)
    finally:
        listener.end()
        node.destroy_node()


@pytest.mark.slow
def test_ends_in_time_and_starts_again(tmp_path: Path) -> None:
    found = list(ends(len(SIGNALS), 6.0, tmp_path, seed=4))
    assert [end.signal for end in found] == list(SIGNALS)
    assert not [end for end in found if end.problem], found
    assert max(end.seconds for end in found) < MOST_SECONDS


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ends_while_it_downloads(number: signal.Signals, tmp_path: Path) -> None:
    """From a server that takes the call and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        environ = {
            "https_proxy": f"http://127.0.0.1:{server.getsockname()[1]}",
            "no_proxy": "",
            "MOBILE_SAM_CACHE": str(tmp_path / "cache"),
        }
        with running(tmp_path / "log", environ=environ, weights="mobile_sam") as node:
            call, _ = server.accept()
            with call:
                status, seconds = node.end(number)
    assert status == 0 and seconds < MOST_SECONDS, node.log.read_text()
    assert not list((tmp_path / "cache").rglob("*"))
