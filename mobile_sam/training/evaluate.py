"""Measures weights on held-out procedural scenes: `python -m mobile_sam.training.evaluate`.

Through the same `Predictor` that users call, at the size of the image, not of the logits.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mobile_sam.checkpoints import WeightsError
from mobile_sam.predictor import Predictor
from mobile_sam.prompts import Prompt
from mobile_sam.scenes import draw_scene
from mobile_sam.segments import tight_box
from mobile_sam.training.samples import inner_point, jittered, objects_of

# Far from the seeds that training draws from.
_HELD_OUT = 0x5EED


@dataclass(frozen=True)
class Result:
    """IoU of each object, float64 (N,), by kind of prompt; `areas`: int64 (N,), in pixels."""

    iou: dict[str, NDArray[np.float64]]
    areas: NDArray[np.int64]


def mask_iou(found: NDArray[np.bool_], wanted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Returns the IoU of masks, bool (..., H, W), with one of bool (H, W)."""
    union = (found | wanted).sum((-1, -2))
    return (found & wanted).sum((-1, -2)) / np.maximum(union, 1)


def evaluate(predictor: Predictor, scenes: int, size_hw: tuple[int, int] = (256, 256)) -> Result:
    """Segments every object of `scenes` scenes with each kind of prompt."""
    rng = np.random.default_rng((_HELD_OUT, *size_hw))
    found: dict[str, list[float]] = {}
    areas = []
    for _ in tqdm(range(scenes), unit="scene", disable=None):
        scene = draw_scene(rng, size_hw)
        embedding = predictor.encode(scene.image)
        for wanted in objects_of(scene):
            box, point = tight_box(wanted), inner_point(wanted)[None]
            one_mask = predictor.decode(
                embedding,
                [Prompt(box=box), Prompt(box=jittered(box, rng)), Prompt(box=box, points=point)],
                multimask=False,
            ).masks
            three = predictor.candidates(embedding, Prompt(points=point))
            overlaps = mask_iou(three.masks, wanted)
            names = ("box", "jittered box", "box and point")
            values = dict(zip(names, mask_iou(one_mask, wanted), strict=True))
            values["one point, best of three"] = overlaps.max()
            values["one point, by predicted IoU"] = overlaps[three.predicted_iou.argmax()]
            for name, value in values.items():
                found.setdefault(name, []).append(float(value))
            areas.append(int(wanted.sum()))
    return Result({name: np.array(values) for name, values in found.items()}, np.array(areas))


def table(result: Result) -> str:
    """Returns mean IoU by prompt and by size of the object, as a Markdown table."""
    sizes = {
        "all": result.areas > 0,
        "under 300 px": result.areas < 300,
        "300 to 2000 px": (result.areas >= 300) & (result.areas < 2000),
        "from 2000 px": result.areas >= 2000,
    }
    lines = ["| prompt | " + " | ".join(f"{k} ({v.sum()})" for k, v in sizes.items()) + " |"]
    lines.append("|---" * (len(sizes) + 1) + "|")
    for name, iou in result.iou.items():
        means = [f"{iou[chosen].mean():.3f}" if chosen.any() else "" for chosen in sizes.values()]
        lines.append(f"| {name} | " + " | ".join(means) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--weights", default="demo", help="name or path")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--scenes", type=int, default=200)
    options = parser.parse_args(arguments)
    try:
        predictor = Predictor.from_weights(options.weights, options.device)
    except (WeightsError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    result = evaluate(predictor, options.scenes)
    print(f"Mean IoU of {options.weights} on {options.scenes} held-out scenes, by size:\n")
    print(table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
