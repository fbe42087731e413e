"""What a run of the demo amounts to, from what was recorded: numbers in, text and verdict out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mobile_sam_ros.demo.recording import (
    DETECTIONS,
    IMAGE,
    OVERLAY,
    SEGMENTS,
    Arrivals,
    Recording,
    mean_iou,
)
from mobile_sam_ros.diagnostics import COUNTERS, PERCENTILES, STAGES

_RECORDED = {
    IMAGE: "stamp to receipt of the image",
    DETECTIONS: "... of its detections, with the detector's own latency",
    SEGMENTS: "... of its segments: the whole way",
    OVERLAY: "... of its overlay",
}
_RECEIVED = "frames/received"
_SEGMENTED = "frames/segmented"


def percentiles(values: Sequence[float]) -> tuple[float, ...]:
    """Returns PERCENTILES of at least one value, interpolated."""
    return tuple(float(value) for value in np.percentile(values, PERCENTILES))


def latencies(arrivals: Arrivals) -> list[float]:
    """Returns the milliseconds from each stamp to the arrival of its message."""
    return [(arrival - stamp) / 1e6 for stamp, arrival in arrivals.items()]


def judge(recording: Recording, least_iou: float) -> list[str]:
    """Returns what is wrong with a run; nothing if it is good enough.

    Args:
        recording: the run.
        least_iou: required mean IoU, where the truth is known.
    """
    problems = []
    if not recording.arrivals.get(SEGMENTS):
        problems.append("no image was segmented")
    elif recording.overlaps is not None:
        reached = mean_iou(recording.overlaps)
        if reached < least_iou:
            problems.append(f"mean IoU {reached:.3f} is less than {least_iou:g}")
    elif not any(recording.objects.values()):
        problems.append("no object was found in any image")
    return problems


def describe(recording: Recording) -> str:
    """Returns the report as text."""
    return "\n\n".join((_frames(recording), _latency(recording), _quality(recording)))


def _frames(recording: Recording) -> str:
    frames_in = recording.counts.get(IMAGE, 0)
    frames_out = recording.counts.get(SEGMENTS, 0)
    span = _seconds(recording.arrivals.get(SEGMENTS, {}))
    rate = f", {(frames_out - 1) / span:.1f} a second" if span else ""
    lines = [
        "Frames",
        f"  {frames_in:5d}  in, from the camera",
        f"  {frames_out:5d}  out, segmented{rate}",
    ]
    for name, meaning in COUNTERS.items():
        number = int(recording.statistics.get(name, 0))
        if number and name not in (_RECEIVED, _SEGMENTED):
            lines.append(f"  {number:5d}  {name}: {meaning}")
    if _RECEIVED in recording.statistics:
        lost = frames_in - int(recording.statistics[_RECEIVED])
        if lost > 0:
            lines.append(f"  {lost:5d}  never received by the node: lost, or replaced on the way")
    return "\n".join(lines)


def _seconds(arrivals: Arrivals) -> float:
    return (max(arrivals.values()) - min(arrivals.values())) / 1e9 if arrivals else 0.0


def _latency(recording: Recording) -> str:
    lines = [
        f"{'Latency in milliseconds':25}" + "".join(f"{f'p{p}':>8}" for p in PERCENTILES),
        "  as the recorder saw it",
    ]
    for topic, meaning in _RECORDED.items():
        milliseconds = latencies(recording.arrivals.get(topic, {}))
        if milliseconds:
            cells = [f"{value:.1f}" for value in percentiles(milliseconds)]
            lines.append(_row(topic, cells, meaning))
    lines.append("  as the node says, stage by stage")
    for stage, meaning in STAGES.items():
        keys = [f"latency_{stage}_p{percent}_ms_since_start" for percent in PERCENTILES]
        values = [recording.statistics.get(key, "") for key in keys]
        if any(values):
            cells = [f"{float(value):.1f}" if value else "-" for value in values]
            lines.append(_row(stage, cells, meaning))
    return "\n".join(lines)


def _row(name: str, cells: Sequence[str], meaning: str) -> str:
    return f"    {name:21}" + "".join(f"{cell:>8}" for cell in cells) + f"  {meaning}"


def _quality(recording: Recording) -> str:
    if recording.overlaps is None:
        number = sum(recording.objects.values())
        return (
            f"Objects\n  {number:5d}  segmented, in {len(recording.objects)} images\n"
            "  Nobody knows the truth about this video: no IoU."
        )
    lines = ["Mean IoU with the truth"]
    names = sorted({overlap.id for overlap in recording.overlaps})
    for name in names:
        own = [overlap for overlap in recording.overlaps if overlap.id == name]
        lines.append(f"    {mean_iou(own):.3f}  object {name}, in {len(own)} images")
    lines.append(f"    {mean_iou(recording.overlaps):.3f}  all {len(recording.overlaps)} masks")
    return "\n".join(lines)
