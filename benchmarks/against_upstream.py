"""Our library beside upstream's code, on the same weights and frames, in one run.

    python benchmarks/against_upstream.py --repeats 7

Upstream is mobilesam-lite from PyPI, used as its documentation says. The weights are random: they
cost what trained ones cost. All are measured in turn, so that what else the machine does hits
all, and medians and their ratios are printed, with the floor that the machine sets: the encoder's
floating point operations at the speed of a large matrix product.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import process_memory
import torch

from mobile_sam.benchmark import SIZES, Way, interleaved_medians, machine, make_backend, ways
from mobile_sam.checkpoints import load_sam
from mobile_sam.everything import EverythingSettings, segment_everything
from mobile_sam.modeling import MULTI
from mobile_sam.predictor import Predictor
from mobile_sam.prompts import Prompt
from mobile_sam.scenes import MovingScene

_ENCODER_GFLOP = 77.5  # of a 1024 x 1024 input, counted on the graph
_PROCESSES = 3  # whose memory is measured, of each
_GRID = 16
_KEPT_SHARE = 0.3  # of everything's masks, about as many as pass with trained weights
_SEED = 3


@dataclass(frozen=True)
class Task:
    """The same work, done by upstream and by each of our ways."""

    name: str
    upstream: Callable[[], object]
    ours: Mapping[str, Callable[[], object]]


def make_upstream(weights: Path):  # type: ignore[no-untyped-def]
    """Returns upstream's package and its model; writes the weights if they are not there."""
    with contextlib.redirect_stdout(io.StringIO()):
        from mobilesam_lite import mobile_sam as package
    torch.manual_seed(_SEED)
    model = package.sam_model_registry["vit_t"]().eval()
    if not weights.exists():
        torch.save(model.state_dict(), weights)
    return package, model


def boxes_of(size_hw: tuple[int, int], count: int) -> np.ndarray:
    """Returns boxes spread over the picture, float32 (count, 4)."""
    rng = np.random.default_rng(1)
    height, width = size_hw
    low = rng.uniform(0, 0.6, (count, 2)) * (width, height)
    high = low + rng.uniform(0.1, 0.35, (count, 2)) * (width, height)
    return np.concatenate([low, high], axis=1).astype(np.float32)


def make_tasks(weights: Path, everything: bool) -> list[Task]:
    """Returns what is measured."""
    package, model = make_upstream(weights)
    theirs = package.SamPredictor(model)
    sam = load_sam(weights)
    # Not the reference: nobody would run it.
    ours = {str(way): Predictor(make_backend(sam, way)) for way in ways()[1:]}
    for predictor in ours.values():
        for size in SIZES.values():
            predictor.prepare(size)
    frames = {name: MovingScene(7, size, 6).frame(0).image for name, size in SIZES.items()}
    tasks = [
        Task(
            f"encode {name}",
            lambda f=frame: theirs.set_image(f),  # type: ignore[misc]
            {way: lambda p=p, f=frame: p.encode(f) for way, p in ours.items()},  # type: ignore[misc]
        )
        for name, frame in frames.items()
    ]
    frame = frames["640x480"]
    point = np.array([[300.0, 200.0]], np.float32)
    boxes = boxes_of(SIZES["640x480"], 8)
    # Upstream's way for many boxes: torch tensors in the model's coordinates.
    scaled = theirs.transform.apply_boxes_torch(torch.from_numpy(boxes), frame.shape[:2])
    embeddings = {way: p.encode(frame) for way, p in ours.items()}
    one, eight = [Prompt(points=point)], [Prompt(box=box) for box in boxes]
    tasks += [
        Task(
            "decode one point, 640x480",
            lambda: theirs.predict(point, np.ones(1), multimask_output=True),
            {
                way: lambda p=p, e=embeddings[way]: p.decode(e, one).masks  # type: ignore[misc]
                for way, p in ours.items()
            },
        ),
        Task(
            "decode 8 boxes, 640x480",
            lambda: theirs.predict_torch(None, None, boxes=scaled, multimask_output=False),
            {
                way: lambda p=p, e=embeddings[way]: p.decode(e, eight, multimask=False).masks  # type: ignore[misc]
                for way, p in ours.items()
            },
        ),
    ]
    if everything:
        points = np.random.default_rng(2).uniform(0, 400, (32, 2)).astype(np.float32)
        way = next(iter(ours))
        _, iou = ours[way].logits(embeddings[way], [Prompt(points=p[None]) for p in points], MULTI)
        least = min(max(float(iou.quantile(1 - _KEPT_SHARE)), 0.0), 1.0)
        generator = package.SamAutomaticMaskGenerator(
            model,
            points_per_side=_GRID,
            pred_iou_thresh=least,
            stability_score_thresh=0.0,
            output_mode="uncompressed_rle",
        )
        settings = EverythingSettings(
            points_per_side=_GRID, least_predicted_iou=least, least_stability=0.0
        )
        tasks.append(
            Task(
                f"everything, {_GRID}x{_GRID} points, 640x480",
                lambda: generator.generate(frame),
                {
                    way: lambda p=p: segment_everything(p, frame, settings)  # type: ignore[misc]
                    for way, p in ours.items()
                },
            )
        )
    theirs.set_image(frame)
    return tasks


def matrix_speed() -> float:
    """Returns the speed of a 2048 x 2048 matrix product, GFLOP/s, the best of some."""
    a = torch.randn(2048, 2048)
    best = 0.0
    for _ in range(6):
        begin = time.perf_counter()
        a @ a
        best = max(best, 2 * 2048**3 / (time.perf_counter() - begin) / 1e9)
    return best


def peak_memory(
    who: str, weights: Path, is_first_start: bool = False, size: str = "640x480"
) -> float:
    """Returns the peak memory, MB, of a process that encodes a frame of a size and decodes 8 boxes,
    the median of `_PROCESSES` of them; `is_first_start`: that find nothing compiled."""
    command = [sys.executable, __file__, "--memory-of", who, "--weights", str(weights)]
    command += ["--size", size]
    peaks = []
    for _ in range(_PROCESSES):
        with tempfile.TemporaryDirectory() as empty:
            environ = os.environ | ({"MOBILE_SAM_CACHE": empty} if is_first_start else {})
            done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
        peaks.append(float(done.stdout.split()[-1]))
    return statistics.median(peaks)


def _print_memory_of(who: str, weights: Path, size: str) -> None:
    width, height = map(int, size.split("x"))
    size_hw = height, width
    frame = MovingScene(7, size_hw, 6).frame(0).image
    boxes = boxes_of(size_hw, 8)
    if who == "upstream":
        package, model = make_upstream(weights)
        predictor = package.SamPredictor(model)
        predictor.set_image(frame)
        scaled = predictor.transform.apply_boxes_torch(torch.from_numpy(boxes), frame.shape[:2])
        predictor.predict_torch(None, None, boxes=scaled, multimask_output=False)
    else:
        backend, precision = who.split()
        ours = Predictor(make_backend(load_sam(weights), Way(backend, "cpu", precision)))
        ours.prepare(size_hw)
        assert ours.decode(ours.encode(frame), [Prompt(box=b) for b in boxes]).masks.any()
    print(process_memory.peak())


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--no-everything", action="store_true", help="leave out what takes longest")
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--size", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        _print_memory_of(options.memory_of, options.weights, options.size)
        return 0
    with tempfile.TemporaryDirectory() as directory:
        weights = Path(directory) / "random.pt"
        tasks = make_tasks(weights, not options.no_everything)
        speed = matrix_speed()
        print(f"{machine()}, {datetime.date.today()}")
        print(f"matrix product: {speed:.0f} GFLOP/s; the encoder at that speed: "
              f"{1000 * _ENCODER_GFLOP / speed:.0f} ms\n")  # fmt: skip
        print("| task | way | upstream, ms | ours, ms | ratio |\n|---|---|---|---|---|")
        for task in tasks:
            # Everything takes minutes: three rounds say enough.
            repeats = min(options.repeats, 3) if "everything" in task.name else options.repeats
            medians = interleaved_medians({"": task.upstream, **task.ours}, repeats)
            theirs = medians.pop("")
            for way, own in medians.items():
                print(f"| {task.name} | {way} | {theirs:.1f} | {own:.1f} | {theirs / own:.2f} |",
                      flush=True)  # fmt: skip
        upstream = peak_memory("upstream", weights)
        starts = [("", other) for other in ways()[1:]]
        starts += [(" of a first start", other) for other in ways() if other.backend == "openvino"]
        for start, other in starts:
            own = peak_memory(f"{other.backend} {other.precision}", weights, bool(start))
            print(f"| peak memory{start}, MB | {other} | {upstream:.0f} | {own:.0f} | "
                  f"{upstream / own:.2f} |", flush=True)  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
