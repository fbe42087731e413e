"""Pictures of measurements: latency, rates and quality over time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mobile_sam_ros.bags.measuring import Measurements

PERCENTILES = (50, 95, 99)
_WIDTH = 11.0  # inches
_INK, _PALE, _GRID = "#333333", "#8a8a8a", "#e4e4e4"
# Okabe and Ito's colours, which all can tell apart.
_BLUE, _ORANGE, _GREEN, _RED = "#0072b2", "#e69f00", "#009e73", "#d55e00"
_CYCLE = (_BLUE, _RED, _GREEN, _ORANGE, "#cc79a7", "#56b4e9", "#b8a800", "#000000")
_LINES = ("-", "--", ":")
_BINS = 100  # of a line over time, at most
_LEAST_IN_BIN = 5  # images, on average


def latency_chart(measured: Measurements, path: Path) -> bool:
    """Draws when masks came, and how late; returns whether there was anything to draw."""
    latencies = measured.latencies()
    if not any(latencies.values()):
        return False
    figure, (timeline, histogram) = _page(4.2, 1, 2, sharey=True, width_ratios=(4, 1))
    seconds = _seconds(measured, latencies)
    milliseconds = np.array(list(latencies.values())) * 1e3
    timeline.plot(seconds, milliseconds, ".", color=_BLUE, markersize=6, alpha=0.5, mew=0)
    middle, values = _binned(seconds, milliseconds, np.median)
    timeline.plot(middle, values, color=_INK, linewidth=1.2, label="median")
    _mark_missing(timeline, measured)
    timeline.set(xlabel="seconds since the first image", ylabel="milliseconds")
    timeline.set_title("From an image's arrival to that of its masks", loc="left")
    highest = float(milliseconds.max())
    timeline.set_ylim(0, highest * 1.08)
    timeline.legend(loc="upper right", frameon=False)
    bins = np.linspace(0, highest, 41)
    histogram.hist(milliseconds, bins, orientation="horizontal", color=_BLUE, alpha=0.6)
    spread = highest * 0.055
    lowest = 0.0
    for percent, line in zip(PERCENTILES, _LINES, strict=True):
        value = float(np.percentile(milliseconds, percent))
        for axes in (timeline, histogram):
            axes.axhline(value, color=_PALE, linestyle=line, linewidth=1, zorder=0)
        lowest = max(value, lowest + spread)  # texts that would lie on each other move apart
        histogram.annotate(
            f"p{percent} {value:.0f} ms",
            (1.02, lowest),
            xycoords=("axes fraction", "data"),
            va="center",
            color=_INK,
            annotation_clip=False,
        )
    histogram.set(xlabel="images")
    figure.savefig(path)
    return True


def rates_chart(measured: Measurements, path: Path) -> bool:
    """Draws how many images and masks a second, and how many objects; returns True."""
    figure, (rates, objects, gaps) = _page(5.6, 3, sharex=True, height_ratios=(4, 3, 0.7))
    arrivals = {"images": measured.images.values(), "images with masks": measured.results.values()}
    for (name, logs), colour in zip(arrivals.items(), (_PALE, _BLUE), strict=True):
        edges, values = _per_second(np.array(sorted(logs)) / 1e9 - measured.begin / 1e9)
        rates.stairs(values, edges, baseline=None, color=colour, linewidth=1.8, label=name)
    rates.set_ylim(bottom=0)
    rates.set(ylabel="a second")
    rates.set_title("Rates", loc="left")
    rates.legend(loc="lower right", frameon=False, ncols=2)
    seconds = _seconds(measured, measured.objects)
    counts = np.array(list(measured.objects.values()))
    order = np.argsort(seconds)
    objects.step(seconds[order], counts[order], where="post", color=_GREEN, linewidth=1.4)
    objects.fill_between(seconds[order], counts[order], step="post", color=_GREEN, alpha=0.15)
    objects.set_ylim(0, max(1, counts.max(initial=0)) * 1.15)
    objects.yaxis.get_major_locator().set_params(integer=True)
    objects.set(ylabel="objects")
    objects.set_title("Objects with a mask", loc="left")
    missing = measured.without_masks()
    gaps.vlines(_image_seconds(measured, missing), 0, 1, color=_RED, linewidth=0.8)
    gaps.set(ylim=(0, 1), yticks=[], xlabel="seconds since the first image")
    gaps.grid(False)
    share = len(missing) / len(measured.images)
    gaps.set_title(f"Images without a mask: {len(missing)} ({share:.1%})", loc="left")
    figure.savefig(path)
    return True


def quality_chart(measured: Measurements, path: Path) -> bool:
    """Draws how good the masks are over time; returns whether there was anything to draw."""
    if not measured.masks:
        return False
    consistent = [mask for mask in measured.masks if mask.consistency is not None]
    truths = measured.truths or []
    rows: list[Callable[[Axes], None]] = []
    if truths:
        rows.append(lambda axes: _draw_truth(axes, measured))
    rows.append(lambda axes: _draw_estimates(axes, measured))
    if consistent:
        stamps = [mask.stamp for mask in consistent]
        values = np.array([mask.consistency for mask in consistent], float)
        title = "Shape: IoU with the same object's mask before, centre on centre"
        rows.append(lambda axes: _draw_band(axes, measured, stamps, values, _ORANGE, "", title))
    figure, every = _page(0.6 + 2.1 * len(rows), len(rows), sharex=True)
    for draw, axes in zip(rows, every, strict=True):
        draw(axes)
        axes.set_ylim(-0.02, 1.02)
    last = max(_second(measured, stamp) for stamp in (*measured.images, *measured.results))
    every[-1].set(xlabel="seconds since the first image", xlim=(0, last or 1))
    figure.savefig(path)
    return True


CHARTS: Mapping[str, Callable[[Measurements, Path], bool]] = {
    "latency.png": latency_chart,
    "rates.png": rates_chart,
    "quality.png": quality_chart,
}


def _draw_truth(axes: Axes, measured: Measurements) -> None:
    truths = measured.truths or []
    labels = sorted({truth.label for truth in truths})
    mean = float(np.mean([truth.iou for truth in truths]))
    title = f"IoU with the truth: {mean:.3f} in the mean of {len(truths)} masks"
    if len(labels) > len(_CYCLE):
        stamps = [truth.stamp for truth in truths]
        values = np.array([truth.iou for truth in truths])
        _draw_band(axes, measured, stamps, values, _BLUE, "", title)
        return
    for label, colour in zip(labels, _CYCLE, strict=False):
        own = {truth.stamp: truth.iou for truth in truths if truth.label == label}
        middle, values = _binned(_seconds(measured, own), np.array(list(own.values())), np.mean)
        axes.plot(middle, values, color=colour, linewidth=1.4, label=f"object {label}")
    axes.set_title(title, loc="left")
    axes.legend(loc="lower right", frameon=False, ncols=min(len(labels), 4))


def _draw_estimates(axes: Axes, measured: Measurements) -> None:
    stamps = [mask.stamp for mask in measured.masks]
    title = "What the model says of its masks"
    says = np.array([(mask.predicted_iou, mask.stability) for mask in measured.masks])
    for name, values, colour in zip(
        ("predicted IoU", "stability"), says.T, (_BLUE, _GREEN), strict=True
    ):
        _draw_band(axes, measured, stamps, values, colour, name, title)
    axes.legend(loc="lower right", frameon=False, ncols=2)


def _draw_band(
    axes: Axes,
    measured: Measurements,
    stamps: Sequence[int],
    values: NDArray[np.float64],
    colour: str,
    name: str,
    title: str,
) -> None:
    """Draws the median of values over time, and within what eight of ten lie."""
    seconds = np.array([_second(measured, stamp) for stamp in stamps])
    middle, median = _binned(seconds, values, np.median)
    _, low = _binned(seconds, values, lambda part: np.percentile(part, 10))
    _, high = _binned(seconds, values, lambda part: np.percentile(part, 90))
    axes.fill_between(middle, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(middle, median, color=colour, linewidth=1.4, label=name or None)
    axes.set_title(f"{title} (median; 8 of 10 in the band)", loc="left")


def _page(height: float, rows: int, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """Returns a figure and its axes, which are quiet: nothing but the data in full colour."""
    figure = Figure((_WIDTH, height), dpi=110, layout="constrained", facecolor="white")
    ratios = {name: options.pop(name) for name in list(options) if name.endswith("_ratios")}
    every = figure.subplots(rows, columns, squeeze=False, gridspec_kw=ratios, **options)
    for axes in every.ravel():
        axes.grid(color=_GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_PALE)
        axes.tick_params(colors=_INK, length=3)
        axes.margins(x=0.01)
    return figure, every.ravel()


def _mark_missing(axes: Axes, measured: Measurements) -> None:
    """Marks the images without results along the bottom."""
    missing = [stamp for stamp in measured.images if stamp not in measured.results]
    if missing:
        axes.plot(
            _image_seconds(measured, missing),
            np.zeros(len(missing)),
            "|",
            color=_RED,
            markersize=12,
            clip_on=False,
            label=f"no masks ({len(missing)} images)",
        )


def _second(measured: Measurements, stamp: int) -> float:
    """Returns when an image arrived, or its masks did if the image is not in the bag."""
    return (measured.images.get(stamp, measured.results.get(stamp, 0)) - measured.begin) / 1e9


def _seconds(measured: Measurements, by_stamp: Mapping[int, Any]) -> NDArray[np.float64]:
    return np.array([_second(measured, stamp) for stamp in by_stamp])


def _image_seconds(measured: Measurements, stamps: Sequence[int]) -> NDArray[np.float64]:
    return np.array([_second(measured, stamp) for stamp in stamps])


def _per_second(
    seconds: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the edges of bins of a second or longer, and the rates in them, a second."""
    span = max(float(seconds.max(initial=0)), 1e-3)
    count = int(np.clip(min(span, len(seconds) / (2 * _LEAST_IN_BIN)), 1, _BINS))
    counts, edges = np.histogram(seconds, count, (0, span))
    return edges, counts / (span / count)


def _binned(
    seconds: NDArray[np.float64],
    values: NDArray[np.float64],
    reduce: Callable[[NDArray[np.float64]], Any],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the middles of the bins over time that have values, and what these amount to."""
    span = max(float(seconds.max(initial=0)), 1e-3)
    count = int(np.clip(len(np.unique(seconds)) / _LEAST_IN_BIN, 1, _BINS))
    bins = np.clip((seconds / span * count).astype(int), 0, count - 1)
    there = np.unique(bins)
    reduced = np.array([reduce(values[bins == number]) for number in there], float)
    return (there + 0.5) * span / count, reduced
