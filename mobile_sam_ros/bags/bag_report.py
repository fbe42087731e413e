"""The command `bag-report`: how fast and how good the masks in a bag are, as pictures and text."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mobile_sam_ros.bags.measuring import SEGMENTS_TYPE, Measurements, measure
from mobile_sam_ros.bags.segmenting import IMAGE_TYPES
from mobile_sam_ros.bags.source import BagError, SourceBag, beside
from mobile_sam_ros.diagnostics import COUNTERS, PERCENTILES

_NAME = "bag-report"
_TRUTH = "/truth/labels"  # what the demo's camera calls it
_SAME_CLOCK = 60.0  # seconds that a mask may come after its stamp, if both are of one clock
_WORST = 5
_SHOWN_PROBLEMS = 5
_DESCRIPTION = """
Reads a bag with images and the node's segments, as `ros2 bag record` records them and `make demo`
leaves one, and writes latency.png, rates.png, quality.png and report.txt. Latencies are from the
time that an image was recorded to that of its masks; a bag of segment-bag has none.
"""


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser."""
    parser = argparse.ArgumentParser(prog=_NAME, description=_DESCRIPTION)
    add = parser.add_argument
    add("bag", type=Path, metavar="BAG", help="folder, .mcap or .db3 file")
    add("--image", default="", metavar="TOPIC", help="images (the only one there is)")
    add("--segments", default="", metavar="TOPIC", help="masks (the only one there is)")
    add(
        "--truth",
        metavar="TOPIC",
        help=f"label images, 0 where there is no object ({_TRUTH}, if it is there; '' for none)",
    )
    add("--output", type=Path, metavar="FOLDER", help="made if it is not there (BAG_report)")
    return parser


def run(options: argparse.Namespace) -> int:
    """Measures, draws and prints; returns the exit status."""
    output = options.output or beside(options.bag, "report")
    with SourceBag(options.bag) as source:
        segments = options.segments or source.only_topic([SEGMENTS_TYPE], "--segments")
        source.check(segments, SEGMENTS_TYPE)
        truth = options.truth
        if truth is None:
            truth = _TRUTH if _TRUTH in source.topics("sensor_msgs/msg/Image") else ""
        elif truth:
            source.check(truth, "sensor_msgs/msg/Image")
        prefix = f"{segments.rpartition('/')[0]}/"
        results = [topic for topic in source.topics(*IMAGE_TYPES) if topic.startswith(prefix)]
        image = options.image or source.only_topic(IMAGE_TYPES, "--image", [truth, *results])
        source.check(image, *IMAGE_TYPES)
        source.check_order(image, segments, truth)
        measured = measure(source, image, segments, truth)
    if not measured.images or not measured.results:
        raise BagError(f"{options.bag}: no message of {image} and {segments} can be read")
    text = described(measured)
    output.mkdir(parents=True, exist_ok=True)
    (output / "report.txt").write_text(f"{text}\n")
    print(f"{text}\n\nWritten\n    {output / 'report.txt'}")
    try:
        from mobile_sam_ros.bags.charts import CHARTS
    except ImportError as error:
        print(f"{_NAME}: no pictures: {error}: pip install matplotlib", file=sys.stderr)
        return 1
    for name, draw in CHARTS.items():
        if draw(measured, output / name):
            print(f"    {output / name}")
    return 0


def described(measured: Measurements) -> str:
    """Returns the table."""
    parts = (_images(measured), _latencies(measured), _quality(measured), _objects(measured))
    return "\n\n".join(part for part in parts if part)


def _images(measured: Measurements) -> str:
    images, results = len(measured.images), len(measured.results)
    empty = sum(not count for count in measured.objects.values())
    without = sum(stamp not in measured.results for stamp in measured.images)
    lines = [
        "Images",
        f"  {images:6d}  recorded{_rate(measured.images)}",
        f"  {results:6d}  with results{_rate(measured.results)}",
    ]
    rows = [(without, "without results"), (empty, "with results, but no mask in them")]
    rows += [(measured.damaged, "messages that could not be read")]
    rows += [(count, text) for text, count in measured.unusable.most_common(_SHOWN_PROBLEMS)]
    is_live = any(measured.latencies().values())  # else another node's diagnostics
    rows += [
        (int(measured.counters.get(name, 0)), f"{name}: {meaning}")
        for name, meaning in COUNTERS.items()
        if is_live and name.startswith("frames/dropped/")
    ]
    lines += [f"  {count:6d}  {meaning}" for count, meaning in rows if count]
    return "\n".join(lines)


def _rate(logs: Mapping[int, int]) -> str:
    span = (max(logs.values()) - min(logs.values())) / 1e9
    return f", {(len(logs) - 1) / span:.1f} a second" if span > 0 else ""


def _latencies(measured: Measurements) -> str:
    latencies = measured.latencies()
    if not any(latencies.values()):
        return "Latency\n  none: the masks were made from the bag, not while it was recorded"
    rows = {"image to masks": list(latencies.values())}
    from_stamp = list(measured.latencies_from_stamp().values())
    if 0 <= np.median(from_stamp) < _SAME_CLOCK:
        rows["stamp to masks"] = from_stamp
    head = f"{'Latency in milliseconds':26}" + "".join(f"{f'p{p}':>9}" for p in PERCENTILES)
    lines = [head + f"{'most':>9}"]
    for name, seconds in rows.items():
        values = [*np.percentile(seconds, PERCENTILES), max(seconds)]
        lines.append(f"  {name:24}" + "".join(f"{value * 1e3:9.1f}" for value in values))
    return "\n".join(lines)


def _quality(measured: Measurements) -> str:
    shapes = [mask.consistency for mask in measured.masks if mask.consistency is not None]
    rows = {
        "predicted IoU": [mask.predicted_iou for mask in measured.masks],
        "stability": [mask.stability for mask in measured.masks],
        "consistency of shape": shapes,
        "IoU with the truth": [truth.iou for truth in measured.truths or ()],
    }
    head = f"{'Quality':26}" + "".join(f"{name:>9}" for name in ("mean", "p50", "p10", "least"))
    lines = [f"{head}{'masks':>9}"]
    for name, values in rows.items():
        if values:
            cells = [np.mean(values), *np.percentile(values, (50, 10)), min(values)]
            numbers = "".join(f"{value:9.3f}" for value in cells)
            lines.append(f"  {name:24}{numbers}{len(values):9d}")
    if measured.truths is None:
        lines.append("  The bag has no truth to compare with (--truth).")
    return "\n".join(lines)


def _objects(measured: Measurements) -> str:
    """Returns the objects whose masks are worst, by the truth or else by their shape."""
    by_name: dict[str, list[float]] = {}
    for truth in measured.truths or ():
        by_name.setdefault(f"true object {truth.label}", []).append(truth.iou)
    if not by_name:
        for mask in measured.masks:
            if mask.consistency is not None:
                by_name.setdefault(mask.id, []).append(mask.consistency)
    if not by_name:
        return ""
    what = "IoU with the truth" if measured.truths else "consistency of shape"
    worst = sorted(by_name.items(), key=lambda item: float(np.mean(item[1])))[:_WORST]
    lines = [f"Objects, those with the least {what} first"]
    for name, values in worst:
        lines.append(f"  {float(np.mean(values)):6.3f}  {name}, in {len(values)} images")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    try:
        return run(make_parser().parse_args(arguments))
    except (BagError, OSError) as error:
        print(f"{_NAME}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
