"""What more work costs: 1 to 64 objects, pictures from VGA to 4K. Prints tables, draws a plot.

    python benchmarks/scaling.py --output docs/scaling.png

`decode` is from prompts to masks of the picture's size and their label image; `encode` includes
making the picture smaller. Trained weights, because masks at random fill the whole picture.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import pyplot as plt

from mobile_sam.benchmark import interleaved_medians, machine
from mobile_sam.overlay import label_image
from mobile_sam.predictor import Embedding, Predictor
from mobile_sam.prompts import Prompt
from mobile_sam.scenes import MovingScene

_SIZES = {
    "640x480": (480, 640),
    "1280x720": (720, 1280),
    "1920x1080": (1080, 1920),
    "3840x2160": (2160, 3840),
}
_OBJECTS = (1, 2, 4, 8, 16, 32, 64)


def boxes_of(size_hw: tuple[int, int], count: int) -> np.ndarray:
    """Returns boxes of a tenth of the picture's sides, float32 (count, 4)."""
    rng = np.random.default_rng(1)
    size_wh = np.array(size_hw[::-1], float)
    low = rng.uniform(0, 0.85, (count, 2)) * size_wh
    return np.concatenate([low, low + 0.1 * size_wh], axis=1).astype(np.float32)


def decoded(predictor: Predictor, embedding: Embedding, prompts: list[Prompt]) -> None:
    """Decodes as the node does for `~/labels`."""
    segments = predictor.decode(embedding, prompts, multimask=False)
    label_image(segments.crops, segments.boxes, segments.image_size)


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--weights", default="demo", help="name or path (%(default)s)")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("scaling.png"))
    options = parser.parse_args()
    predictor = Predictor.from_weights(options.weights, backend=options.backend)
    named = f"{machine()}, weights {options.weights}, {datetime.date.today()}"
    print(named + "\n")
    images = {name: MovingScene(7, size, 4).frame(0).image for name, size in _SIZES.items()}
    embeddings = {name: predictor.encode(image) for name, image in images.items()}
    encode = interleaved_medians(
        {name: lambda i=image: predictor.encode(i) for name, image in images.items()},  # type: ignore[misc]
        options.repeats,
    )
    prompts = {
        (name, count): [Prompt(box=box) for box in boxes_of(size, count)]
        for name, size in _SIZES.items()
        for count in _OBJECTS
    }
    runs = {
        f"{name} {count}": lambda e=embeddings[name], p=p: decoded(predictor, e, p)
        for (name, count), p in prompts.items()
    }
    decode = interleaved_medians(runs, options.repeats)
    print("| picture | encode, ms | " + " | ".join(f"decode {n}" for n in _OBJECTS)
          + " | ms an object |\n" + "|---" * (len(_OBJECTS) + 3) + "|")  # fmt: skip
    matplotlib.use("Agg")
    figure, axes = plt.subplots(figsize=(7, 4.5))
    for name in _SIZES:
        times = [decode[f"{name} {count}"] for count in _OBJECTS]
        slope = np.polyfit(_OBJECTS, times, 1)[0]
        print(f"| {name} | {encode[name]:.0f} | " + " | ".join(f"{t:.0f}" for t in times)
              + f" | {slope:.1f} |")  # fmt: skip
        axes.plot(_OBJECTS, times, marker="o", label=f"{name}: {slope:.1f} ms an object")
    axes.set_xlabel("objects")
    axes.set_ylabel("decode, ms")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    axes.set_title(named, fontsize=8)
    figure.tight_layout()
    figure.savefig(options.output, dpi=110)
    print(f"\n{options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
