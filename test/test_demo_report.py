"""The demo's numbers, against small arrays whose answers are plain to see."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mobile_sam_ros.demo import report
from mobile_sam_ros.demo.recording import (
    IMAGE,
    SEGMENTS,
    Overlap,
    Recording,
    mask_overlap,
    mean_iou,
    overlaps,
)
from mobile_sam_ros.demo.strip import evenly, picture_strip

TRUTH = np.array(
    [
        [0, 1, 1, 0],
        [0, 1, 1, 0],
        [0, 0, 0, 2],
    ],
    np.uint16,
)


def segment(name: str, x: int, y: int, mask: list[list[int]]) -> Any:
    """A segment by its cropped mask of 0 and 1, with rows padded by one byte."""
    crop = np.array(mask, np.uint8).reshape(len(mask), -1) * 255
    height, width = crop.shape
    padded = np.pad(crop, ((0, 0), (0, 1)), constant_values=255)
    return SimpleNamespace(
        id=name,
        roi=SimpleNamespace(x_offset=x, y_offset=y, height=height, width=width),
        mask=SimpleNamespace(data=padded.tobytes(), height=height, width=width, step=width + 1),
    )


EMPTY = SimpleNamespace(
    id="1",
    roi=SimpleNamespace(x_offset=0, y_offset=0, height=0, width=0),
    mask=SimpleNamespace(data=b"", height=0, width=0, step=0),
)


@pytest.mark.parametrize(
    ("found", "label", "expected"),
    [
        (segment("1", 1, 0, [[1, 1], [1, 1]]), 1, 1.0),
        (segment("1", 1, 0, [[1, 1]]), 1, 0.5),
        (segment("1", 2, 0, [[1, 1], [1, 1]]), 1, 2 / 6),
        (segment("1", 3, 2, [[1]]), 2, 1.0),
        (segment("1", 0, 0, [[1]]), 2, 0.0),
        (EMPTY, 1, 0.0),
        (EMPTY, 3, 0.0),
    ],
)
def test_overlap_of_one_mask(found: Any, label: int, expected: float) -> None:
    assert mask_overlap(found, label == TRUTH) == pytest.approx(expected)


def test_segments_are_matched_by_id_and_missing_ones_count_as_nothing() -> None:
    segments = [segment("2", 3, 2, [[1]]), segment("1", 1, 0, [[1, 1]])]
    assert overlaps(7, ["1", "2", "3"], segments, TRUTH) == [
        Overlap(7, "1", 0.5),
        Overlap(7, "2", 1.0),
        Overlap(7, "3", 0.0),
    ]


def test_mean_iou() -> None:
    assert mean_iou([Overlap(1, "1", 0.5), Overlap(1, "2", 1.0), Overlap(2, "1", 0.9)]) == (
        pytest.approx(0.8)
    )
    assert mean_iou([]) == 0.0


def test_latencies_and_percentiles() -> None:
    milliseconds = report.latencies({1_000_000: 3_000_000, 5_000_000: 9_500_000})
    assert milliseconds == [2.0, 4.5]
    assert report.percentiles(list(range(101))) == (50, 95, 99)
    assert report.percentiles([4.0]) == (4, 4, 4)


def test_a_good_run_has_no_problem() -> None:
    recording = Recording(arrivals={SEGMENTS: {1: 2}}, overlaps=[Overlap(1, "1", 0.8)])
    assert report.judge(recording, 0.75) == []


@pytest.mark.parametrize(
    ("recording", "problem"),
    [
        (Recording(), "no image was segmented"),
        (
            Recording(arrivals={SEGMENTS: {1: 2}}, overlaps=[Overlap(1, "1", 0.7)]),
            "mean IoU 0.700 is less than 0.75",
        ),
        (Recording(arrivals={SEGMENTS: {1: 2}}, overlaps=[]), "mean IoU 0.000 is less than 0.75"),
        (Recording(arrivals={SEGMENTS: {1: 2}}, objects={1: 0}), "no object was found"),
    ],
)
def test_a_bad_run_is_told(recording: Recording, problem: str) -> None:
    assert [problem in text for text in report.judge(recording, 0.75)] == [True]


def test_the_report_names_what_was_dropped_and_why() -> None:
    recording = Recording(
        arrivals={IMAGE: {10**9: 1_002_000_000}, SEGMENTS: {10**9: 1_100_000_000}},
        counts={IMAGE: 5, SEGMENTS: 1},
        overlaps=[Overlap(10**9, "1", 0.875)],
        objects={10**9: 1},
        statistics={
            "frames/received": "4",
            "frames/segmented": "1",
            "frames/dropped/newer": "3",
            "frames/dropped/stale": "0",
            "latency_encode_p50_ms_since_start": "81.26",
        },
    )
    text = report.describe(recording)
    assert "    5  in" in text and "    1  out" in text
    assert "    3  frames/dropped/newer: " in text
    assert "stale" not in text
    assert "    1  never received by the node" in text
    assert "    0.875  all 1 masks" in text
    cells = {words[0]: words[1:4] for words in map(str.split, text.splitlines()) if words}
    assert cells[SEGMENTS] == ["100.0", "100.0", "100.0"]
    assert cells["encode"] == ["81.3", "-", "-"]


def test_the_report_works_without_anything_and_without_truth() -> None:
    assert "no IoU" in report.describe(Recording())


def test_times_are_chosen_evenly() -> None:
    assert evenly([0, 1, 2, 3, 4, 50, 99, 100], 3) == [0, 50, 100]
    assert evenly([3, 1], 6) == [1, 3]
    assert evenly([], 6) == []


@pytest.mark.parametrize(("number", "rows", "columns"), [(1, 1, 1), (3, 1, 3), (4, 2, 3)])
def test_strip_is_a_grid(number: int, rows: int, columns: int) -> None:
    image = np.full((60, 84, 3), (10, 200, 30), np.uint8)
    strip = picture_strip([image] * number, ["0.0 s"] * number)
    tile = 300 + 24 + 8  # 420 wide at the same aspect, caption, gap
    assert strip.shape == (rows * tile + 8, columns * 428 + 8, 3)
    assert (strip[100, 100] == (10, 200, 30)).all()
