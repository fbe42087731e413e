"""What it costs to remember an object by SAM's features, by its size and how long it was not seen.

    python3 benchmarks/memory.py

Features are random: what they say does not change how long it takes. Each figure is the median of
several calls of `Memory.belief` and `Memory.learn` with three images and the first one in memory.
"""

from __future__ import annotations

import argparse
import datetime
import time

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from mobile_sam.benchmark import machine
from mobile_sam.tracking.memory import Memory

_SIZE = (480, 640)
_CELLS = {"mobile_sam": (256, 48, 64), "mobile_sam_512": (256, 24, 32), "demo": (128, 24, 32)}
_SIDES = (60, 120, 240)
_UNSEEN = (0, 4, 20)
_CALLS = 7


def filled(features: Tensor, mask: np.ndarray) -> Memory:
    """Returns a memory with as many images as it keeps."""
    memory = Memory.of(features, mask)
    for _ in range(4):
        memory.learn(features, mask, memory.belief(features, 0))
    return memory


def milliseconds(memory: Memory, features: Tensor, mask: np.ndarray, unseen: int) -> float:
    """Returns the median of what an image takes; what is not seen is not learnt."""
    taken = []
    for _ in range(_CALLS):
        begin = time.perf_counter()
        belief = memory.belief(features, unseen)
        if not unseen:
            memory.learn(features, mask, belief)
        taken.append(1000 * (time.perf_counter() - begin))
    return float(np.median(taken))


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cpu", help="of the features (%(default)s)")
    options = parser.parse_args()
    torch.manual_seed(0)
    of = f"objects in {_SIZE[1]}x{_SIZE[0]}"
    print(f"{machine()}, {options.device}, {of}, ms an image, {datetime.date.today()}\n")
    unseen = " | ".join(f"unseen for {n} images" if n else "in sight" for n in _UNSEEN)
    print(f"| weights | object | {unseen} |\n|---|---|{'---|' * len(_UNSEEN)}")
    for weights, shape in _CELLS.items():
        features = F.normalize(torch.randn(shape), dim=0).to(options.device)
        for side in _SIDES:
            mask = np.zeros(_SIZE, bool)
            mask[100 : 100 + side, 200 : 200 + side] = True
            memory = filled(features, mask)
            row = (milliseconds(memory, features, mask, n) for n in _UNSEEN)
            each = " | ".join(f"{value:.0f}" for value in row)
            print(f"| {weights} | {side}x{side} | {each} |", flush=True)


if __name__ == "__main__":
    main()
