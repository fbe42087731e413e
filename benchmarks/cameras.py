"""One to four cameras: in one process, and each with a process of its own.

    python3 tools/environment.py run -- python3 benchmarks/cameras.py

Each camera publishes 640x480 at a rate, with boxes, and the same demo weights serve all. What
matters is how many images a camera gets segmented, how old its masks are, and the memory.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import rclpy
from node_cost import Rig, running, spin
from rclpy.executors import SingleThreadedExecutor

from mobile_sam.benchmark import machine

_NAMES = ("front", "left", "rear", "right")
_SIZE = (480, 640)


def resident(pid: int) -> float:
    """Returns what a process has allocated and touched, in MB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    wanted = ("Anonymous:", "Swap:")
    return sum(int(line.split()[1]) for line in lines if line.startswith(wanted)) / 1024


def run(count: int, together: bool, rate: float, seconds: float) -> str:
    """Measures one row of the table."""
    names = _NAMES[:count]
    parameters = ["stale_after:=0.0"]
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
        memory = sum(resident(pid) for pid in pids)
        for rig in rigs:
            rig.destroy_node()
    how = "one process" if together else "a process each"
    return (
        f"| {count} | {how} | {min(served):.1f} to {max(served):.1f} | {sum(served):.1f} | "
        f"{np.percentile(trips, 50):.0f} | {np.percentile(trips, 99):.0f} | {memory:.0f} |"
    )


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rate", type=float, default=10.0, help="images a second and camera")
    parser.add_argument("--seconds", type=float, default=8.0)
    options = parser.parse_args()
    rclpy.init()
    print(f"{machine()}, weights demo, 640x480 at {options.rate:g} Hz a camera, 4 objects, "
          f"{datetime.date.today()}\n")  # fmt: skip
    print("| cameras | how | masks a second, each | all | p50, ms | p99, ms | memory, MB |"
          "\n|---|---|---|---|---|---|---|")  # fmt: skip
    for count in (1, 2, 4):
        for together in (True, False) if count > 1 else (True,):
            print(run(count, together, options.rate, options.seconds), flush=True)
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
