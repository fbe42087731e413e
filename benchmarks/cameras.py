"""One to four cameras, in one process and in one each: prints a table and draws it.

    python3 tools/environment.py run -- python3 benchmarks/cameras.py --output docs/cameras.png

Each camera publishes 640x480 at a rate, with boxes, and the same demo weights serve all. What
matters is how many images a camera gets segmented, how old its masks are, and the memory.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import process_memory
import rclpy
from matplotlib import pyplot as plt
from node_cost import Rig, running, spin
from rclpy.executors import SingleThreadedExecutor

from mobile_sam.benchmark import machine

_NAMES = ("front", "left", "rear", "right")
_SIZE = (480, 640)


@dataclass(frozen=True)
class Row:
    """What was measured of some cameras.

    served: masks a second, of each camera.
    p50, p99: age of the masks, in ms.
    memory: of all processes, in MB.
    """

    cameras: int
    together: bool
    served: Sequence[float]
    p50: float
    p99: float
    memory: float

    @property
    def how(self) -> str:
        """How many processes there were."""
        return "one process" if self.together else "a process each"

    def __str__(self) -> str:
        return (
            f"| {self.cameras} | {self.how} | {min(self.served):.1f} to {max(self.served):.1f} | "
            f"{sum(self.served):.1f} | {self.p50:.0f} | {self.p99:.0f} | {self.memory:.0f} |"
        )


def run(count: int, together: bool, rate: float, seconds: float) -> Row:
    """Measures one row of the table."""
    names = _NAMES[:count]
    parameters = ["weights:=demo", "stale_after:=0.0"]
    with ExitStack() as stack:
        groups = [",".join(names)] if together else list(names)
        pids = [stack.enter_context(running(parameters, group)) for group in groups]
        executor = SingleThreadedExecutor()
        rigs = [Rig(_SIZE, 4, "mask", name) for name in names]
        for rig in rigs:
            executor.add_node(rig)
        if not spin(executor, lambda: all(rig.ready() for rig in rigs), 90.0):
            raise SystemExit("the nodes do not listen")
        stamp = time.time_ns()
        for rig in rigs:  # the first pictures prepare the encoder
            while not rig.arrived:
                rig.publish(stamp)
                stamp += 1
                spin(executor, lambda r=rig: r.arrived, 10.0)  # type: ignore[misc]
            rig.measured.trips.clear()
        begin, number = time.monotonic(), 0
        while time.monotonic() < begin + seconds:
            for rig in rigs:
                rig.publish(stamp)
                stamp += 1
            number += 1
            spin(executor, lambda: False, begin + number / rate - time.monotonic())
        served = [len(rig.measured.trips) / seconds for rig in rigs]
        trips = np.concatenate([rig.measured.trips for rig in rigs])
        memory = sum(process_memory.private(pid) for pid in pids)
        for rig in rigs:
            rig.destroy_node()
    p50, p99 = np.percentile(trips, (50, 99)).tolist()
    return Row(count, together, served, p50, p99, memory)


def draw(rows: Sequence[Row], title: str, path: Path) -> None:
    """Draws the table."""
    matplotlib.use("Agg")
    figure, (masks, age, memory) = plt.subplots(1, 3, figsize=(10, 3.6))
    for together in (True, False):
        some = [row for row in rows if row.together is together]
        cameras = [row.cameras for row in some]
        (line,) = masks.plot(
            cameras, [sum(row.served) for row in some], marker="o", label=some[0].how
        )
        colour = line.get_color()
        age.plot(cameras, [row.p50 for row in some], marker="o", color=colour)
        age.plot(cameras, [row.p99 for row in some], marker="o", color=colour, linestyle=":")
        memory.plot(cameras, [row.memory for row in some], marker="o", color=colour)
    masks.legend()
    for axes, what in (
        (masks, "masks a second, all cameras"),
        (age, "age of a mask, ms: p50, p99 dotted"),
        (memory, "memory, MB"),
    ):
        axes.set_title(what, fontsize=9)
        axes.set_xlabel("cameras")
        axes.set_xticks(range(1, len(_NAMES) + 1))
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    figure.suptitle(title, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rate", type=float, default=10.0, help="images a second and camera")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--output", type=Path, default=Path("cameras.png"))
    options = parser.parse_args()
    rclpy.init()
    named = (
        f"{machine()}, weights demo, 640x480 at {options.rate:g} Hz a camera, 4 objects, "
        f"{datetime.date.today()}"
    )
    print(named + "\n")
    print("| cameras | how | masks a second, each | all | p50, ms | p99, ms | memory, MB |"
          "\n|---|---|---|---|---|---|---|")  # fmt: skip
    rows = []
    for count in range(1, len(_NAMES) + 1):
        for together in (True, False):
            rows.append(run(count, together, options.rate, options.seconds))
            print(rows[-1], flush=True)
    rclpy.try_shutdown()
    draw(rows, named, options.output)
    print(f"\n{options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
