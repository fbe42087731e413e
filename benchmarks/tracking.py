"""How well objects are followed after one click, on procedural scenes with their truth.

    python benchmarks/tracking.py --scenes 8

In each scene objects move straight and bounce, turn, pulse, and pass before each other. Each is
clicked once, at its deepest point, in the first image: all of them at the same time, and each one
alone, where it has to be told from objects that nobody named. An object whose first mask is wrong
already (IoU under 0.7) says something about the weights, not about following; it counts apart.
"""

from __future__ import annotations

import argparse
import datetime
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from mobile_sam.benchmark import machine
from mobile_sam.choices import DEFAULT_WEIGHTS
from mobile_sam.overlay import label_image, overlay_image
from mobile_sam.predictor import Embedding, Predictor
from mobile_sam.prompts import Prompt
from mobile_sam.scenes import MovingScene, Scene
from mobile_sam.segments import inner_points
from mobile_sam.tracking import Tracker
from mobile_sam.training.evaluate import mask_iou
from mobile_sam_ros.demo.strip import picture_strip

_SIZE = (480, 640)
_OBJECTS = 4
_SECONDS = 0.1  # from image to image
_LEAST_VISIBLE = 30  # pixels, for an image to count
_RIGHT_BEGIN = 0.7
_SHOWN_SEED = 5
_SHOWN = (0, 80, 145, 175, 200, 299)


@dataclass
class Result:
    """What came of one object.

    begin: IoU of its first mask.
    overlaps: IoU in each image in which it can be seen; 0 where it was not found.
    strays: images in which most of its mask lay on another object.
    """

    begin: float
    overlaps: list[float] = field(default_factory=list)
    strays: int = 0

    @property
    def mean(self) -> float:
        """Mean IoU while it can be seen."""
        return float(np.mean(self.overlaps))


def follow(
    predictor: Predictor,
    frames: Sequence[tuple[Scene, Embedding]],
    labels: Sequence[int],
    times: list[float],
) -> list[Result]:
    """Follows the objects of these labels; adds what each image took to `times`, in seconds."""
    tracker = Tracker(predictor)
    scene, embedding = frames[0]
    prompts = {str(k): Prompt(points=inner_points(scene.labels == k, 1)) for k in labels}
    tracker.start(scene.image, embedding, prompts, 0.0)
    masks = dict(zip(tracker.boxes, tracker.segments(embedding).masks, strict=True))
    results = {
        id: Result(float(mask_iou(mask, scene.labels == int(id)))) for id, mask in masks.items()
    }
    for index, (scene, embedding) in enumerate(frames[1:], 1):
        begin = time.perf_counter()
        tracker.step(scene.image, embedding, index * _SECONDS)
        masks_now = tracker.segments(embedding).masks
        times.append(time.perf_counter() - begin)
        for item, mask in zip(tracker.objects(), masks_now, strict=True):
            result, truth = results[item.id], scene.labels == int(item.id)
            if np.count_nonzero(truth) >= _LEAST_VISIBLE:
                result.overlaps.append(float(mask_iou(mask, truth)) if mask.any() else 0.0)
            if mask.any():
                on = int(np.bincount(scene.labels[mask]).argmax())
                result.strays += on not in (0, int(item.id))
    return list(results.values())


def row(name: str, results: Sequence[Result], times: Sequence[float]) -> str:
    """Returns a row of the table."""
    right = [result for result in results if result.begin >= _RIGHT_BEGIN]
    means = [result.mean for result in right]
    images = sum(len(result.overlaps) for result in right)
    return (
        f"| {name} | {len(right)} of {len(results)} | {np.mean(means):.3f} | "
        f"{np.median(means):.3f} | {min(means):.3f} | {sum(m >= 0.75 for m in means)} | "
        f"{sum(r.strays for r in right)} of {images} | {1e3 * np.median(times):.0f} |"
    )


def draw(predictor: Predictor, path: Path) -> None:
    """Draws a few images of a scene with what is followed in them."""
    scene = MovingScene(_SHOWN_SEED, _SIZE, _OBJECTS)
    tracker = Tracker(predictor)
    pictures, captions = [], []
    for index in range(_SHOWN[-1] + 1):
        frame = scene.frame(index)
        embedding = predictor.encode(frame.image)
        if index:
            tracker.step(frame.image, embedding, index * _SECONDS)
        else:
            points = (inner_points(frame.labels == k, 1) for k in range(1, _OBJECTS + 1))
            prompts = {str(k): Prompt(points=point) for k, point in enumerate(points, 1)}
            tracker.start(frame.image, embedding, prompts, 0.0)
        if index in _SHOWN:
            segments = tracker.segments(embedding)
            labels = label_image(segments.crops, segments.boxes, _SIZE)
            pictures.append(overlay_image(frame.image, labels, 0.5))
            states = ", ".join(f"{item.id} {item.state.value}" for item in tracker.objects())
            captions.append(f"{index * _SECONDS:.1f} s: {states}")
    cv2.imwrite(str(path), picture_strip(pictures, captions)[..., ::-1])


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=10, help="number of them (%(default)s)")
    parser.add_argument("--first", type=int, default=100, help="seed of the first (%(default)s)")
    parser.add_argument("--images", type=int, default=300, help="of each scene (%(default)s)")
    parser.add_argument("--weights", default=DEFAULT_WEIGHTS, help="name or path (%(default)s)")
    parser.add_argument("--picture", type=Path, help="only draw a scene, into this file")
    options = parser.parse_args()
    predictor = Predictor.from_weights(options.weights)
    predictor.prepare(_SIZE)
    if options.picture:
        draw(predictor, options.picture)
        return
    together: list[Result] = []
    alone: list[Result] = []
    times: dict[str, list[float]] = {"together": [], "alone": []}
    for seed in range(options.first, options.first + options.scenes):
        scene = MovingScene(seed, _SIZE, _OBJECTS)
        frames = []
        for index in range(options.images):
            frame = scene.frame(index)
            frames.append((frame, predictor.encode(frame.image)))
        there = np.bincount(frames[0][0].labels.ravel(), minlength=_OBJECTS + 1)[1:]
        labels = [k for k, area in enumerate(there, 1) if area >= _LEAST_VISIBLE]
        together += follow(predictor, frames, labels, times["together"])
        for label in labels:
            alone += follow(predictor, frames, [label], times["alone"])
        of_scene = (f"{r.mean:.2f} ({r.strays} on another)" for r in alone[-len(labels) :])
        print(f"scene {seed}, each alone: " + ", ".join(of_scene))
    print(
        f"\n{machine()}, weights {options.weights}, {options.scenes} scenes from {options.first} "
        f"on, {options.images} images {_SIZE[1]}x{_SIZE[0]}, {datetime.date.today()}\n"
    )
    print(
        "| clicked | begun right | mean IoU | median | least | at least 0.75 | on another | "
        "ms an image |\n|---|---|---|---|---|---|---|---|"
    )
    print(row(f"{_OBJECTS} at once", together, times["together"]))
    print(row("each alone", alone, times["alone"]))


if __name__ == "__main__":
    main()
