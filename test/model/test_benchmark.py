"""`mobile-sam benchmark`: what it prints, and which way it recommends."""

from __future__ import annotations

import re

import numpy as np
import pytest

from mobile_sam import cli
from mobile_sam.benchmark import (
    Result,
    Way,
    interleaved_medians,
    mean_iou,
    recommended,
    table,
)
from mobile_sam.segments import Segments

REFERENCE = Way("torch", "cpu", "fp32", True)
SLOW, HALF, FAST = (
    Way("torch", "cpu", "fp32"),
    Way("torch", "cpu", "bf16"),
    Way("openvino", "cpu", "fp32"),
)


def result(way: Way, encode_ms: float, agreement: float) -> Result:
    return Result(way, 1000.0, {"640x480": encode_ms}, 10.0, agreement)


@pytest.mark.parametrize(
    ("agreements", "best"),
    [
        ((1.0, 0.999, 0.99, 0.995), HALF),  # the fastest
        ((1.0, 0.999, 0.97, 0.995), FAST),  # the fastest whose masks are right
        ((1.0, 0.9, 0.9, 0.9), REFERENCE),
    ],
)
def test_the_fastest_way_with_right_masks_is_recommended(
    agreements: tuple[float, ...], best: Way
) -> None:
    times = zip((REFERENCE, SLOW, HALF, FAST), (90.0, 70.0, 30.0, 40.0), agreements, strict=True)
    results = [result(*row) for row in times]
    assert recommended(results).way == best
    lines = table(results).splitlines()
    assert lines[2].startswith("| torch, cpu, fp32, padding too | 1000.0 | 90.0 | 10.0 |")
    assert len({line.count("|") for line in lines}) == 1


@pytest.mark.parametrize(
    ("agreement", "printed"),
    [
        (
            0.9,
            "Take --backend torch --device cpu --precision fp32 --encode-padding; for the node:\n"
            "ros2 launch mobile_sam_ros sam.launch.py weights:=demo backend:=torch device:=cpu "
            "precision:=fp32 encode_padding:=true\n",
        ),
        (
            0.99,
            "Take --backend openvino --device cpu --precision fp32; for the node:\n"
            "ros2 launch mobile_sam_ros sam.launch.py weights:=demo backend:=openvino device:=cpu "
            "precision:=fp32\n",
        ),
    ],
)
def test_all_of_the_settings_are_printed(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    agreement: float,
    printed: str,
) -> None:
    """The padding as well, where masks are wrong without it."""
    results = [result(REFERENCE, 90.0, 1.0), result(FAST, 40.0, agreement)]
    monkeypatch.setattr("mobile_sam.benchmark.measure", lambda *arguments: results)
    assert cli.main(["benchmark", "--weights", "demo"]) == 0
    assert capsys.readouterr().out.endswith(printed)


def test_runs_are_measured_in_turn() -> None:
    calls: list[str] = []
    medians = interleaved_medians(
        {name: lambda n=name: calls.append(n) for name in ("a", "b")},  # type: ignore[misc]
        repeats=2,
    )
    assert calls == ["a", "b"] * 3  # the first two warm up
    assert set(medians) == {"a", "b"} and all(time >= 0 for time in medians.values())


def test_masks_are_compared_object_by_object() -> None:
    def segments(*widths: int) -> Segments:
        """Masks of one row and so many columns each."""
        boxes = np.array([[0, 0, w, 1] if w else [0, 0, 0, 0] for w in widths], np.float32)
        crops = tuple(np.ones((1 if w else 0, w), bool) for w in widths)
        ones = np.ones(len(widths), np.float32)
        logits = np.zeros((len(widths), 4, 4), np.float32)
        return Segments((4, 4), boxes, crops, ones, ones, logits)

    assert mean_iou(segments(4, 2), segments(4, 4)) == pytest.approx(0.75)
    assert mean_iou(segments(0, 2), segments(0, 2)) == 1


@pytest.mark.slow
def test_the_command_prints_a_table_and_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["benchmark", "--weights", "demo", "--repeats", "1"]) == 0
    printed = capsys.readouterr().out
    assert "weights demo" in printed
    rows = re.findall(r"^\| (torch|openvino), cpu, .*\| (\d\.\d{3}) \|$", printed, re.M)
    assert len(rows) >= 3 and rows[0] == ("torch", "1.000")
    assert all(float(agreement) > 0.9 for _, agreement in rows)
    assert re.search(
        r"sam\.launch\.py weights:=demo backend:=\w+ device:=cpu precision:=\w+"
        r"( encode_padding:=true)?$",
        printed,
        re.M,
    )


def test_bad_repeats_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["benchmark", "--repeats", "0"]) == 1
    assert "--repeats is 0, the least is 1" in capsys.readouterr().err
