"""Our library beside upstream's code, on the same weights and frames, in one run.

    python benchmarks/against_upstream.py --repeats 7

Upstream is mobilesam-lite from PyPI, used as its documentation says. The weights are random: they
cost what trained ones cost. The two are measured in turn, so that what else the machine does hits
both, and medians and their ratio are printed, with the floor that the machine sets: the encoder's
floating point operations at the speed of a large matrix product.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mobile_sam.everything import EverythingSettings, segment_everything
from mobile_sam.modeling import MULTI
from mobile_sam.predictor import Predictor
from mobile_sam.prompts import Prompt
from mobile_sam.scenes import MovingScene

_ENCODER_GFLOP = 77.5  # of a 1024 x 1024 input, counted on the graph
_SIZES = {"640x480": (480, 640), "1280x720": (720, 1280)}
_GRID = 16
_KEPT_SHARE = 0.3  # of everything's masks, about as many as pass with trained weights
_SEED = 3


@dataclass(frozen=True)
class Task:
    """The same work, done by both."""

    name: str
    upstream: Callable[[], object]
    ours: Callable[[], object]


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
    theirs, ours = package.SamPredictor(model), Predictor.from_weights(weights, "cpu")
    frames = {name: MovingScene(7, size, 6).frame(0).image for name, size in _SIZES.items()}
    tasks = [
        Task(
            f"encode {name}",
            lambda f=frame: theirs.set_image(f),  # type: ignore[misc]
            lambda f=frame: ours.encode(f),  # type: ignore[misc]
        )
        for name, frame in frames.items()
    ]
    frame = frames["640x480"]
    embedding = ours.encode(frame)
    point = np.array([[300.0, 200.0]], np.float32)
    boxes = boxes_of(_SIZES["640x480"], 8)
    # Upstream's way for many boxes: torch tensors in the model's coordinates.
    scaled = theirs.transform.apply_boxes_torch(torch.from_numpy(boxes), frame.shape[:2])

    tasks += [
        Task(
            "decode one point, 640x480",
            lambda: theirs.predict(point, np.ones(1), multimask_output=True),
            lambda: ours.decode(embedding, [Prompt(points=point)]).masks,
        ),
        Task(
            "decode 8 boxes, 640x480",
            lambda: theirs.predict_torch(None, None, boxes=scaled, multimask_output=False),
            lambda: ours.decode(embedding, [Prompt(box=b) for b in boxes], multimask=False).masks,
        ),
    ]
    if everything:
        points = np.random.default_rng(2).uniform(0, 400, (32, 2)).astype(np.float32)
        _, iou = ours.logits(embedding, [Prompt(points=p[None]) for p in points], MULTI)
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
                lambda: segment_everything(ours, frame, settings),
            )
        )
    theirs.set_image(frame)
    return tasks


def measure(task: Task, repeats: int) -> tuple[float, float]:
    """Returns the medians, in milliseconds, of upstream and of ours, measured in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    task.upstream(), task.ours()  # caches, memory, threads
    for _ in range(repeats):
        for run, kept in ((task.upstream, times[0]), (task.ours, times[1])):
            begin = time.perf_counter()
            run()
            kept.append(1000 * (time.perf_counter() - begin))
    return statistics.median(times[0]), statistics.median(times[1])


def matrix_speed() -> float:
    """Returns the speed of a 2048 x 2048 matrix product, GFLOP/s, the best of some."""
    a = torch.randn(2048, 2048)
    best = 0.0
    for _ in range(6):
        begin = time.perf_counter()
        a @ a
        best = max(best, 2 * 2048**3 / (time.perf_counter() - begin) / 1e9)
    return best


def peak_memory(who: str, weights: Path) -> float:
    """Returns the peak memory, MB, of a process that encodes a frame and decodes 8 boxes."""
    command = [sys.executable, __file__, "--memory-of", who, "--weights", str(weights)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def _print_memory_of(who: str, weights: Path) -> None:
    frame = MovingScene(7, _SIZES["640x480"], 6).frame(0).image
    boxes = boxes_of(_SIZES["640x480"], 8)
    if who == "upstream":
        package, model = make_upstream(weights)
        predictor = package.SamPredictor(model)
        predictor.set_image(frame)
        scaled = predictor.transform.apply_boxes_torch(torch.from_numpy(boxes), frame.shape[:2])
        predictor.predict_torch(None, None, boxes=scaled, multimask_output=False)
    else:
        ours = Predictor.from_weights(weights, "cpu")
        assert ours.decode(ours.encode(frame), [Prompt(box=b) for b in boxes]).masks.any()
    # Not getrusage: that counts the parent's memory at the fork as well.
    lines = Path("/proc/self/status").read_text().splitlines()
    print(next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")))


def machine() -> str:
    """Names the machine."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    return f"{model or platform.processor()}, {torch.get_num_threads()} threads"


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--no-everything", action="store_true", help="leave out what takes longest")
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--memory-of", choices=("upstream", "ours"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        _print_memory_of(options.memory_of, options.weights)
        return 0
    with tempfile.TemporaryDirectory() as directory:
        weights = Path(directory) / "random.pt"
        tasks = make_tasks(weights, not options.no_everything)
        speed = matrix_speed()
        print(f"{machine()}, torch {torch.__version__}, {datetime.date.today()}")
        print(f"matrix product: {speed:.0f} GFLOP/s; the encoder at that speed: "
              f"{1000 * _ENCODER_GFLOP / speed:.0f} ms\n")  # fmt: skip
        print("| task | upstream, ms | ours, ms | ratio |\n|---|---|---|---|")
        for task in tasks:
            theirs, own = measure(task, options.repeats)
            print(f"| {task.name} | {theirs:.1f} | {own:.1f} | {theirs / own:.2f} |", flush=True)
        memory = [peak_memory(who, weights) for who in ("upstream", "ours")]
        print(f"| peak memory, MB | {memory[0]:.0f} | {memory[1]:.0f} | "
              f"{memory[0] / memory[1]:.2f} |")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
