"""Percentiles and rates against NumPy and by hand; label images and overlays pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

from mobile_sam.overlay import label_image, overlay_image, palette
from mobile_sam_ros.diagnostics import WINDOW_S, Latency, Statistics, status, status_values
from mobile_sam_ros.machine import memory, temperatures


@pytest.mark.parametrize("percent", [50, 95, 99])
def test_percentiles(percent: int) -> None:
    seconds = np.random.default_rng(2).lognormal(-3, 1, 500)
    latency = Latency()
    for value in seconds:
        latency.add(float(value), now=0)
    # The least that so many per cent do not exceed; NumPy 1.21 has no such percentile.
    wanted = min(value for value in seconds if 100 * (seconds <= value).mean() >= percent)
    assert latency.recent(percent) == wanted
    assert latency.since_start(percent) == pytest.approx(wanted, rel=0.011)


def test_only_the_window_counts_as_recent() -> None:
    latency = Latency()
    latency.add(9, now=0)
    latency.add(1, now=WINDOW_S + 1)
    assert latency.recent(99) == 1
    assert latency.since_start(99) == pytest.approx(9, rel=0.011)


def test_rates_and_counters() -> None:
    seconds = [0.0]
    statistics = Statistics(lambda: seconds[-1])
    for _ in range(20):
        seconds.append(seconds[-1] + 0.5)
        statistics.count("frames/received")
    statistics.count("frames/dropped/stale")
    values = statistics.values()
    assert float(values["rate_received_hz"]) == pytest.approx(2, abs=0.21)
    assert values["frames/received"] == "20" and values["frames/dropped/stale"] == "1"
    with pytest.raises(KeyError):
        statistics.count("frames/eaten")


def test_problems_of_the_window_make_the_level() -> None:
    seconds = [0.0]
    statistics = Statistics(lambda: seconds[-1])

    def now() -> tuple[bytes, str]:
        found = status("/sam", statistics.values(), statistics.problems())
        return found.level, found.message

    statistics.count("frames/dropped/newer")
    assert now() == (DiagnosticStatus.OK, "0.00 of 0.00 Hz segmented, 1 dropped since the start")
    statistics.count("objects/dropped", "too many", 3)
    seconds.append(1.0)
    statistics.count("objects/dropped", "far too many", 4)
    text = "objects/dropped 7 times in 5 s: far too many"
    assert now() == (DiagnosticStatus.WARN, text)
    statistics.count("frames/dropped/failed")
    assert now() == (DiagnosticStatus.ERROR, f"frames/dropped/failed 1 times in 5 s; {text}")
    seconds.append(WINDOW_S + 1.5)
    assert now()[0] == DiagnosticStatus.OK
    assert statistics.values()["objects/dropped"] == "7"


def test_status_is_found_again() -> None:
    values = Statistics().values()
    message = DiagnosticArray(status=[status("/robot/sam", values)])
    assert status_values(message, "/robot/sam") == values
    assert status_values(message, "/sam") is None


def test_the_machine_says_what_can_be_read(tmp_path: Path) -> None:
    for number, (name, value) in enumerate(
        (("cpu-thermal", "48312"), ("gpu-thermal", "51000"), ("off", None), ("cpu-thermal", "1500"))
    ):
        zone = tmp_path / f"thermal_zone{number}"
        zone.mkdir()
        (zone / "type").write_text(name + "\n")
        if value is not None:
            (zone / "temp").write_text(value + "\n")
    assert temperatures(tmp_path) == {
        "temperature_cpu-thermal_c": "48.3",
        "temperature_gpu-thermal_c": "51.0",
        "temperature_cpu-thermal_3_c": "1.5",
    }
    assert 10 < float(memory()["memory_mb"]) < 100_000
    assert memory(tmp_path / "none") == {} and temperatures(tmp_path / "none") == {}


def test_smaller_objects_lie_on_top() -> None:
    crops = [np.ones((2, 2), bool), np.ones((4, 6), bool), np.zeros((0, 0), bool)]
    boxes = np.array([[1, 1, 3, 3], [0, 0, 6, 4], [0, 0, 0, 0]], np.float32)
    expected = np.full((4, 6), 2)
    expected[1:3, 1:3] = 1
    np.testing.assert_array_equal(label_image(crops, boxes, (4, 6)), expected)


def test_colours_stay_and_differ() -> None:
    colours = palette(20)
    np.testing.assert_array_equal(palette(5), colours[:6])
    assert np.abs(np.diff(colours.astype(int), axis=0)).sum(axis=1).min() > 60


def test_overlay_colours_objects_only() -> None:
    image = np.full((9, 9, 3), 100, np.uint8)
    labels = np.zeros((9, 9), np.uint16)
    labels[2:7, 2:7] = 1
    result = overlay_image(image, labels, 1.0)
    np.testing.assert_array_equal(result[labels == 0], image[labels == 0])
    np.testing.assert_array_equal(result[4, 4], palette(1)[1])
    np.testing.assert_array_equal(result[2, 2], (255, 255, 255))
    np.testing.assert_array_equal(overlay_image(image, labels, 0.0)[4, 4], image[4, 4])
    assert (overlay_image(image, labels * 0, 0.5) == image).all()
