"""`mobile-sam benchmark`: how fast this machine is, and which settings to take."""

from __future__ import annotations

import argparse
import datetime
import sys
from typing import Any

from mobile_sam import benchmark
from mobile_sam.checkpoints import load_sam
from mobile_sam.choices import DEFAULT_WEIGHTS


def add_command(commands: Any) -> None:
    """Adds the command to a parser's subparsers."""
    parser = commands.add_parser(
        "benchmark",
        help="measure this machine, and get the settings to take",
        description="Measures each way to run the model here, in about a minute, and names the "
        "fastest one whose masks are right. Pictures are procedural.",
    )
    parser.add_argument("--weights", default=DEFAULT_WEIGHTS, help="name or path (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="of each measurement (%(default)s)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measures and prints; returns the exit status."""
    if options.repeats < 1:
        raise ValueError(f"--repeats is {options.repeats}, the least is 1")
    sam = load_sam(options.weights)

    def tell(way: str) -> None:
        print(f"measuring {way}", file=sys.stderr)

    results = benchmark.measure(sam, options.repeats, tell)
    print(f"{benchmark.machine()}, weights {options.weights}, {datetime.date.today()}\n")
    print(benchmark.table(results))
    best = benchmark.recommended(results).way
    option, argument = (
        (" --encode-padding", " encode_padding:=true") if best.encode_padding else ("", "")
    )
    print(
        f"\nTake --backend {best.backend} --device {best.device} --precision {best.precision}"
        f"{option}; for the node:\n"
        f"ros2 launch mobile_sam_ros sam.launch.py weights:={options.weights} "
        f"backend:={best.backend} device:={best.device} precision:={best.precision}{argument}"
    )
    return 0
