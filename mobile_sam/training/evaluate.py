"""Measures weights by the masks they make: `python -m mobile_sam.training.evaluate`.

Through the same `Predictor` that users call, at the size of the image, not of the logits; on
held-out procedural scenes, on a user's own data, or against the masks of other weights.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from mobile_sam.checkpoints import WeightsError
from mobile_sam.predictor import Embedding, Predictor
from mobile_sam.prompts import Prompt
from mobile_sam.segments import inner_points, tight_box
from mobile_sam.training.clicks import central_click
from mobile_sam.training.examples import (
    EXAMPLES_FORMS,
    Example,
    ExamplesError,
    first_examples,
    open_examples,
)
from mobile_sam.training.options import at_least
from mobile_sam.training.samples import jittered

# Training on scenes has other first numbers.
_HELD_OUT = 0x5EED
_CLICKS = (1, 3, 5)
_DISTANCES = (100, 200, 300, 400, 500)
_DIRECTIONS = 32  # that are tried for each
_SCENES = 200
_SIZES = ((0, 300), (300, 2000), (2000, None))  # pixels


@dataclass(frozen=True, eq=False)
class Result:
    """What was measured on N objects.

    Attributes:
        iou: float64 (N,), by row of the table, most of them kinds of prompts; NaN where the prompt
            was not possible.
        areas: int64 (N,), in pixels.
        origins: N pairs, the number of the example and of the object in it.
    """

    iou: dict[str, NDArray[np.float64]]
    areas: NDArray[np.int64]
    origins: list[tuple[int, int]]


def mask_iou(found: NDArray[np.bool_], wanted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Returns the IoU of masks, bool (..., H, W), with one of bool (H, W)."""
    union = (found | wanted).sum((-1, -2))
    return (found & wanted).sum((-1, -2)) / np.maximum(union, 1)


def evaluate(predictor: Predictor, examples: Iterable[Example], seed: int = _HELD_OUT) -> Result:
    """Segments every object of the examples with each kind of prompt.

    The kinds: a tight box; a box that is off by a few per cent; box and point; a point in the
    middle of the object, of whose three masks the best one counts, or the one with the greatest
    predicted IoU; 1, 3 and 5 clicks, each in the middle of what is most wrong after the one
    before; and the object's own mask, blurred by the size of the logits. Last, with
    no model at all: that blurred mask as the logits, scaled up again.
    """
    rng = np.random.default_rng(seed)
    rows: list[dict[str, float]] = []
    areas, origins = [], []
    for number, example in enumerate(examples):
        if not example.masks:
            continue
        embedding = predictor.encode(example.image)
        for index, wanted in enumerate(example.masks):
            box, point = tight_box(wanted), inner_points(wanted, 1)
            own_logits = predictor.mask_logits(wanted)
            prompts = {
                "box": Prompt(box=box),
                "jittered box": Prompt(box=jittered(box, rng)),
                "box and point": Prompt(box=box, points=point),
                "mask": Prompt(mask_logits=own_logits),
            }
            masks = predictor.decode(embedding, list(prompts.values()), multimask=False).masks
            row = dict(zip(prompts, mask_iou(masks, wanted).tolist(), strict=True))
            three = predictor.candidates(embedding, Prompt(points=point))
            overlaps = mask_iou(three.masks, wanted)
            row["one point, best of three"] = float(overlaps.max())
            row["one point, by predicted IoU"] = float(overlaps[three.predicted_iou.argmax()])
            row |= _clicked(predictor, embedding, wanted)
            as_logits = torch.from_numpy(own_logits)[None], torch.ones(1)
            blurred = predictor.segments(*as_logits, embedding).masks[0]
            row["no model: the blurred mask"] = float(mask_iou(blurred, wanted))
            rows.append(row)
            areas.append(int(wanted.sum()))
            origins.append((number, index))
    return _result(rows, areas, origins)


def _clicked(
    predictor: Predictor, embedding: Embedding, wanted: NDArray[np.bool_]
) -> dict[str, float]:
    """Returns the IoU after some numbers of clicks."""
    points, labels, logits = [], [], None
    found = np.zeros_like(wanted)
    values = {}
    for clicks in range(1, max(_CLICKS) + 1):
        click = central_click(found, wanted)
        if click is not None:  # else there is nothing to correct
            points.append(click[0])
            labels.append(click[1])
            prompt = Prompt(points=np.array(points), labels=np.array(labels), mask_logits=logits)
            segments = predictor.decode(embedding, [prompt])
            found, logits = segments.masks[0], segments.logits[0]
        if clicks in _CLICKS:
            name = "1 click" if clicks == 1 else f"{clicks} clicks"
            values[name] = float(mask_iou(found, wanted))
    return values


def compare(
    predictor: Predictor, other: Predictor, examples: Iterable[Example], seed: int = _HELD_OUT
) -> Result:
    """Measures the IoU with the masks of other weights for the same prompts.

    As MobileSAM's paper compares with SAM (Zhang et al. 2023, arXiv:2306.14289, section 5): a
    point on the object, and a point that is not on it 100 to 500 pixels away, where there is one;
    and with the box. Nothing has to be labelled but one point or box an object.
    """
    rng = np.random.default_rng(seed)
    rows: list[dict[str, float]] = []
    areas, origins = [], []
    for number, example in enumerate(examples):
        embeddings = [p.encode(example.image) for p in (predictor, other)]
        for index, mask in enumerate(example.masks):
            prompts = {"box": Prompt(box=tight_box(mask))}
            point = inner_points(mask, 1)[0]
            for distance in _DISTANCES:
                beside = _beside(mask, point, distance, rng)
                if beside is not None:
                    points = np.array([point, beside], np.float32)
                    prompts[f"points {distance} px apart"] = Prompt(points=points, labels=[1, 0])  # type: ignore[arg-type]
            found, wanted = (
                p.decode(e, list(prompts.values()), multimask=False).masks
                for p, e in zip((predictor, other), embeddings, strict=True)
            )
            pairs = zip(prompts, found, wanted, strict=True)
            rows.append({name: float(mask_iou(f, w)) for name, f, w in pairs})
            areas.append(int(wanted[0].sum()))
            origins.append((number, index))
    return _result(rows, areas, origins)


def _beside(
    mask: NDArray[np.bool_], point: NDArray[np.float32], distance: float, rng: np.random.Generator
) -> NDArray[np.float64] | None:
    """Returns a pixel of the picture so far from a point and not on the object; None if there is
    none in some random directions."""
    height, width = mask.shape
    angles = rng.uniform(0, 2 * np.pi, _DIRECTIONS)
    places = np.round(point + distance * np.stack([np.cos(angles), np.sin(angles)], axis=1))
    for place in places:
        x, y = place.astype(int)
        if 0 <= x < width and 0 <= y < height and not mask[y, x]:
            return place
    return None


def _result(
    rows: Sequence[dict[str, float]], areas: list[int], origins: list[tuple[int, int]]
) -> Result:
    names = list(dict.fromkeys(name for row in rows for name in row))
    iou = {name: np.array([row.get(name, np.nan) for row in rows]) for name in names}
    return Result(iou, np.array(areas, np.int64), origins)


def _chosen_sizes(result: Result) -> dict[str, NDArray[np.bool_]]:
    sizes = {"all": np.ones(len(result.areas), bool)}
    for least, most in _SIZES:
        name = f"from {least} px" if most is None else f"{least} to {most} px"
        name = f"under {most} px" if least == 0 else name
        sizes[name] = (result.areas >= least) & (result.areas < (most or np.inf))
    return sizes


def table(result: Result) -> str:
    """Returns mean IoU by prompt and by size of the object, as a Markdown table."""
    sizes = _chosen_sizes(result)
    lines = ["| prompt | " + " | ".join(f"{k} ({v.sum()})" for k, v in sizes.items()) + " |"]
    lines.append("|---" * (len(sizes) + 1) + "|")
    for name, iou in result.iou.items():
        known = np.isfinite(iou)
        cells = [iou[chosen & known] for chosen in sizes.values()]
        means = [f"{values.mean():.3f}" if len(values) else "" for values in cells]
        lines.append(f"| {name} | " + " | ".join(means) + " |")
    return "\n".join(lines)


def plot(result: Result, path: Path) -> None:
    """Draws how the IoU is spread, for each kind of prompt, by the objects' sizes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (spread, by_size) = pyplot.subplots(1, 2, figsize=(11, 4.5), constrained_layout=True)
    edges = np.quantile(np.sqrt(result.areas), np.linspace(0, 1, 7))
    sides = np.sqrt(result.areas)
    for name, iou in result.iou.items():
        known = np.isfinite(iou)
        values = np.sort(iou[known])
        spread.plot(values, np.linspace(0, 1, len(values)), label=f"{name}: {values.mean():.3f}")
        means, centres = [], []
        for low, high in zip(edges[:-1], edges[1:], strict=True):
            inside = known & (sides >= low) & (sides <= high)
            if inside.any():
                means.append(iou[inside].mean())
                centres.append(sides[inside].mean())
        by_size.plot(centres, means, marker="o", label=name)
    spread.set(xlabel="IoU", ylabel="share of the objects below", xlim=(0, 1), ylim=(0, 1))
    spread.legend(fontsize=8, title="mean")
    by_size.set(xlabel="square root of the object's area, px", ylabel="mean IoU", ylim=(0, 1))
    for axes in (spread, by_size):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def pictures(
    predictor: Predictor,
    get: Callable[[int], Example],
    result: Result,
    path: Path,
    other: Predictor | None = None,
    each: int = 4,
) -> None:
    """Draws the worst, the median and the best masks with a box, a row each.

    The found mask is red, what it is measured by outlined in green (the object, or the mask of
    the other weights), the box blue. The number is the IoU of the two.

    Raises:
        OSError: the file cannot be written.
    """

    def tile(row: np.intp) -> NDArray[np.uint8]:
        number, index = result.origins[row]
        return _tile(predictor, other, get(number), index, float(result.iou["box"][row]))

    order = np.argsort(result.iou["box"], kind="stable")
    middle = len(order) // 2
    rows = (order[:each], order[max(middle - each // 2, 0) :][:each], order[::-1][:each])
    drawn = []
    for row in rows:
        tiles = [tile(i) for i in row]
        tiles += [np.full_like(tiles[0], 255)] * (each - len(tiles))
        drawn.append(np.concatenate(tiles, axis=1))
    if not cv2.imwrite(str(path), np.concatenate(drawn)[..., ::-1]):
        raise OSError(f"{path}: cannot be written")


_TILE = 256


def _tile(
    predictor: Predictor, other: Predictor | None, example: Example, index: int, iou: float
) -> NDArray[np.uint8]:
    box = tight_box(example.masks[index])

    def found_by(weights: Predictor) -> NDArray[np.bool_]:
        embedding = weights.encode(example.image)
        return weights.decode(embedding, [Prompt(box=box)], multimask=False).masks[0]

    mask = found_by(predictor)
    wanted = example.masks[index] if other is None else found_by(other)
    scale = _TILE / max(wanted.shape)
    size = (round(wanted.shape[1] * scale), round(wanted.shape[0] * scale))
    image = cv2.resize(example.image, size, interpolation=cv2.INTER_AREA)
    red = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    image[red] = image[red] // 2 + np.array([127, 0, 0], np.uint8)
    own = cv2.resize(wanted.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    outlines, _ = cv2.findContours(own, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, outlines, -1, (0, 255, 0), 1)
    x0, y0, x1, y1 = (int(value) for value in box * scale)
    cv2.rectangle(image, (x0, y0), (x1, y1), (80, 120, 255), 1)
    cv2.putText(image, f"{iou:.2f}", (4, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (255, 255, 255), 1)
    canvas = np.full((_TILE, _TILE, 3), 255, np.uint8)
    canvas[: image.shape[0], : image.shape[1]] = image
    return canvas


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m mobile_sam.training.evaluate",
        description="Prints the mean IoU by kind of prompt and by size, as a Markdown table.",
    )
    parser.add_argument("--weights", default="demo", help="name or path (%(default)s)")
    parser.add_argument(
        "--data",
        default="scenes",
        help=f"{EXAMPLES_FORMS} (%(default)s)",
    )
    parser.add_argument(
        "--scenes",
        type=at_least(1),
        help=f"pictures at most (all; of scenes, which never end, {_SCENES})",
    )
    parser.add_argument(
        "--side", type=at_least(1), default=256, help="of scenes, pixels (%(default)s)"
    )
    parser.add_argument(
        "--against", metavar="WEIGHTS", help="compare with the masks of these weights instead"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="also writes table, plot, pictures, iou.json"
    )
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(arguments)
    try:
        examples = open_examples(options.data, (_HELD_OUT,), (options.side, options.side))
        predictor = Predictor.from_weights(options.weights, options.device)
        other = Predictor.from_weights(options.against, options.device) if options.against else None
        most = options.scenes or examples.count or _SCENES
        chosen = tqdm(
            first_examples(examples, most),
            total=min(most, examples.count or most),
            unit="picture",
            disable=None,
        )
        result = evaluate(predictor, chosen) if other is None else compare(predictor, other, chosen)
        if not len(result.areas):
            raise ExamplesError(f"{options.data}: has no objects")
        against = f", against {options.against}" if options.against else ""
        measured = len({number for number, _ in result.origins})
        print(
            f"Mean IoU of {options.weights} on {measured} pictures of {options.data}{against}, "
            "by size:\n"
        )
        print(table(result))
        if options.output:
            _write(options.output, predictor, examples.get, result, other)
    except (WeightsError, ExamplesError, ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


def _write(
    directory: Path,
    predictor: Predictor,
    get: Callable[[int], Example],
    result: Result,
    other: Predictor | None,
) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "table.md").write_text(table(result) + "\n")
    numbers = {
        # JSON has no NaN.
        name: [round(value, 4) if np.isfinite(value) else None for value in iou.tolist()]
        for name, iou in result.iou.items()
    }
    content = {"areas": result.areas.tolist(), "origins": result.origins, "iou": numbers}
    (directory / "iou.json").write_text(json.dumps(content, allow_nan=False))
    pictures(predictor, get, result, directory / "pictures.png", other)
    plot(result, directory / "plot.png")


if __name__ == "__main__":
    sys.exit(main())
