"""`mobile-sam benchmark`: how fast this machine is, and which settings to take."""

from __future__ import annotations

import argparse
import datetime
import sys
from typing import Any

import torch

from mobile_sam import benchmark
from mobile_sam.checkpoints import WEIGHTS, load_sam
from mobile_sam.modeling import MOBILE_SAM, Sam


def add_command(commands: Any) -> None:
    """Adds the command to a parser's subparsers."""
    parser = commands.add_parser(
        "benchmark",
        help="measure this machine, and get the settings to take",
        description="Measures each way to run the model here, in about a minute, and names the "
        "fastest one whose masks are right. Pictures are procedural; nothing is downloaded: "
        "without --weights, the official weights if they are there, else random ones of the same "
        "size, which cost the same, but whose masks say nothing.",
    )
    parser.add_argument("--weights", help="name or path (see above)")
    parser.add_argument("--repeats", type=int, default=5, help="of each measurement (%(default)s)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measures and prints; returns the exit status."""
    if options.repeats < 1:
        raise ValueError(f"--repeats is {options.repeats}, the least is 1")
    official = WEIGHTS["mobile_sam"]
    weights = options.weights or (official.name if official.path.is_file() else None)
    if weights is None:
        torch.manual_seed(0)
        sam, what = Sam(MOBILE_SAM).eval(), f"random weights of the size of {official.name}"
    else:
        sam, what = load_sam(weights), f"weights {weights}"

    def tell(way: str) -> None:
        print(f"measuring {way}", file=sys.stderr)

    results = benchmark.measure(sam, weights is not None, options.repeats, tell)
    print(f"{benchmark.machine()}, {what}, {datetime.date.today()}\n")
    print(benchmark.table(results))
    best = benchmark.recommended(results).way
    print(
        f"\nTake --backend {best.backend} --device {best.device} --precision {best.precision}; "
        "for the node:\n"
        f"ros2 launch mobile_sam_ros sam.launch.py backend:={best.backend} "
        f"device:={best.device} precision:={best.precision}"
    )
    return 0
