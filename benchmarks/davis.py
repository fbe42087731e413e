"""How well an object is followed in real videos with their true masks: those of DAVIS 2016.

    python benchmarks/davis.py DAVIS

DAVIS is the folder of the data set (https://davischallenge.org), with `JPEGImages/480p/VIDEO/` and
`Annotations/480p/VIDEO/`. In each video, the box of the object is shown once, in the first image.
As DAVIS counts: the mean IoU over the images of a video, without the first and the last, and then
the mean over the videos. Beside that:

- what the model gives if each image is shown with the true box: better than that, following with
  boxes cannot be;
- what becomes of the object if each image is asked with the box of the mask before.
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobile_sam.benchmark import machine
from mobile_sam.pictures import PictureError, first_image
from mobile_sam.predictor import Embedding, Predictor
from mobile_sam.prompts import Prompt
from mobile_sam.segments import tight_box
from mobile_sam.tracking import Tracker
from mobile_sam.training.evaluate import mask_iou

_RATE = 24.0  # images a second
_ID = "1"


@dataclass(frozen=True, eq=False)
class Frame:
    """One image of a video: RGB uint8 (H, W, 3), encoded, with the object's true mask, bool."""

    image: NDArray[np.uint8]
    embedding: Embedding
    truth: NDArray[np.bool_]


def box_of(mask: NDArray[np.bool_]) -> Prompt:
    """Returns the prompt for the box of a mask."""
    return Prompt(box=tight_box(mask))


def followed(predictor: Predictor, video: Sequence[Frame]) -> Iterable[NDArray[np.bool_]]:
    """Yields the masks of an object that is shown once and followed."""
    tracker = Tracker(predictor)
    for index, frame in enumerate(video):
        if index:
            tracker.step(frame.image, frame.embedding, index / _RATE)
        else:
            tracker.start(frame.image, frame.embedding, {_ID: box_of(frame.truth)}, 0.0)
        yield tracker.segments(frame.embedding).masks[0]


def shown(predictor: Predictor, video: Sequence[Frame]) -> Iterable[NDArray[np.bool_]]:
    """Yields the masks of an object that is shown in each image, by its true box."""
    for frame in video:
        if frame.truth.any():
            yield predictor.decode(frame.embedding, [box_of(frame.truth)]).masks[0]
        else:
            yield frame.truth


def chained(predictor: Predictor, video: Sequence[Frame]) -> Iterable[NDArray[np.bool_]]:
    """Yields the masks of an object that is shown by the box of its mask in the image before."""
    before = video[0].truth
    for frame in video:
        mask = predictor.decode(frame.embedding, [box_of(before)]).masks[0]
        before = mask if mask.any() else before
        yield mask


WAYS = {"true box in each image": shown, "box of the mask before": chained, "followed": followed}


def overlaps(video: Sequence[Frame], masks: Iterable[NDArray[np.bool_]]) -> list[float]:
    """Returns the IoU in each image but the first and the last; 1 where there is nothing to see and
    nothing was found, as DAVIS counts."""
    each = [
        float(mask_iou(mask, frame.truth)) if mask.any() or frame.truth.any() else 1.0
        for frame, mask in zip(video, masks, strict=True)
    ]
    return each[1:-1]


def read(predictor: Predictor, images: Path, truths: Path) -> list[Frame]:
    """Returns the images of a video, encoded.

    Raises:
        PictureError: there are none, or an image or its truth cannot be read.
    """
    frames = []
    paths = sorted(images.glob("*.jpg"))
    if not paths:
        raise PictureError(f"{images}: no images")
    for path in paths:
        image, truth = first_image(path), first_image(truths / f"{path.stem}.png")
        frames.append(Frame(image, predictor.encode(image), truth.max(axis=-1) > 0))
    return frames


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("davis", type=Path, help="folder of the data set")
    parser.add_argument("--videos", nargs="*", help="names of some (default: those there are)")
    parser.add_argument("--weights", default="mobile_sam", help="name or path (%(default)s)")
    parser.add_argument("--backend", default="auto", help="that runs it (%(default)s)")
    parser.add_argument("--precision", default="auto", help="of the encoder (%(default)s)")
    options = parser.parse_args()
    predictor = Predictor.from_weights(
        options.weights, backend=options.backend, precision=options.precision
    )
    folder = options.davis / "JPEGImages" / "480p"
    names = options.videos or sorted(path.name for path in folder.iterdir())
    print(f"| video | images | {' | '.join(WAYS)} |\n|---|---|{'---|' * len(WAYS)}")
    means: list[list[float]] = []
    images = 0
    for name in names:
        try:
            video = read(predictor, folder / name, options.davis / "Annotations" / "480p" / name)
        except PictureError as error:
            raise SystemExit(str(error)) from None
        of_video = [float(np.mean(overlaps(video, way(predictor, video)))) for way in WAYS.values()]
        images += len(video)
        means.append(of_video)
        print(f"| {name} | {len(video)} | {' | '.join(f'{m:.3f}' for m in of_video)} |", flush=True)
    print(f"| **mean** | {images} | {' | '.join(f'{m:.3f}' for m in np.mean(means, axis=0))} |")
    backend = type(predictor.model).__name__
    ran = f"weights {options.weights}, {backend}, precision {options.precision}"
    print(f"\n{machine()}, {ran}, {datetime.date.today()}")


if __name__ == "__main__":
    main()
