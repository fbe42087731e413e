"""What the weights make of real pictures, drawn as they are: photographs, and people followed.

    pip download --no-deps scikit-image
    unzip -j scikit_image-*.whl 'skimage/data/*' -d photographs
    python3 benchmarks/real_pictures.py photographs \\
        --video /usr/share/doc/opencv-doc/examples/data/vtest.avi --output docs

Writes photographs.jpg: photographs that scikit-image ships (in the public domain, CC0, or
without known restrictions), prompted by boxes and points, a row for each set of weights. With
--video also people.jpg: three people in OpenCV's vtest.avi, of whom only the first image's boxes
are given; their states are printed.
"""

from __future__ import annotations

import argparse
import sys
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mobile_sam.overlay import label_image, overlay_image
from mobile_sam.pictures import first_image, open_pictures
from mobile_sam.predictor import Predictor
from mobile_sam.prompts import Prompt
from mobile_sam.tracking import Tracker
from mobile_sam_ros.demo.strip import picture_strip

_HEIGHT = 300  # pixels of a drawn picture
_WEIGHTS = ("mobile_sam", "mobile_sam_512", "demo")
_BOX, _POINT = (255, 255, 255), (255, 40, 40)


def _box(*corners: float) -> Prompt:
    return Prompt(box=np.array(corners, np.float32))


def _point(x: float, y: float) -> Prompt:
    return Prompt(points=np.array([[x, y]], np.float32))


_PROMPTS = {
    "astronaut.png": (
        _box(160, 60, 300, 220),
        _box(320, 0, 512, 280),
        _point(120, 400),
    ),
    "chelsea.png": (
        _box(60, 0, 390, 299),
        _point(178, 108),
        _point(293, 135),
    ),
    "coffee.png": (
        _box(75, 20, 482, 375),
        _point(250, 170),
        _point(390, 275),
    ),
    "rocket.jpg": (_box(290, 60, 360, 330), _point(200, 30)),
    "coins.png": tuple(
        _box(*box)
        for box in ((20, 28, 78, 82), (185, 85, 240, 140), (18, 150, 65, 210), (305, 8, 364, 72))
    ),
}
_PEOPLE = {"1": (500, 155, 532, 235), "2": (252, 218, 284, 310), "3": (638, 240, 686, 322)}
_SECONDS = 0.1  # an image of vtest.avi
_SHOWN = (0, 30, 60, 90, 120)


def segmented(
    predictor: Predictor, image: NDArray[np.uint8], prompts: tuple[Prompt, ...]
) -> NDArray[np.uint8]:
    """Returns a picture of the masks, with the prompts drawn in."""
    segments = predictor.decode(predictor.encode(image), list(prompts))
    labels = label_image(segments.crops, segments.boxes, segments.image_size)
    drawn = overlay_image(image, labels, 0.5)
    for prompt in prompts:
        if prompt.box is not None:
            x0, y0, x1, y1 = (int(value) for value in prompt.box)
            cv2.rectangle(drawn, (x0, y0), (x1 - 1, y1 - 1), _BOX, 1)
        for x, y in () if prompt.points is None else prompt.points:
            cv2.circle(drawn, (int(x), int(y)), 5, _POINT, -1)
    size = (round(drawn.shape[1] * _HEIGHT / drawn.shape[0]), _HEIGHT)
    return cv2.resize(drawn, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def photographs(folder: Path) -> NDArray[np.uint8]:
    """Returns a row of photographs for each set of weights."""
    rows = []
    for weights in _WEIGHTS:
        predictor = Predictor.from_weights(weights)
        tiles = [
            segmented(predictor, first_image(folder / name), prompts)
            for name, prompts in _PROMPTS.items()
        ]
        rows.append(np.concatenate(tiles, axis=1))
    return np.concatenate(rows)


def people(video: Path) -> NDArray[np.uint8]:
    """Follows the people, prints what became of them, and returns a few images."""
    predictor = Predictor.from_weights(_WEIGHTS[0])
    tracker = Tracker(predictor)
    shown, captions = [], []
    for index, picture in enumerate(islice(open_pictures(video), _SHOWN[-1] + 1)):
        image = picture.image
        assert image is not None
        embedding = predictor.encode(image)
        if index:
            tracker.step(image, embedding, index * _SECONDS)
        else:
            prompts = {id: _box(*box) for id, box in _PEOPLE.items()}
            tracker.start(image, embedding, prompts, 0.0)
        if index in _SHOWN:
            segments = tracker.segments(embedding)
            labels = label_image(segments.crops, segments.boxes, segments.image_size)
            shown.append(overlay_image(image, labels, 0.6))
            states = ", ".join(f"{item.id} {item.state.value}" for item in tracker.objects())
            captions.append(f"{index * _SECONDS:.0f} s: {states}")
            print(captions[-1])
    return picture_strip(shown, captions)


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="of the photographs")
    parser.add_argument("--video", type=Path)
    parser.add_argument("--output", type=Path, default=Path())
    options = parser.parse_args()
    quality = [cv2.IMWRITE_JPEG_QUALITY, 85]
    options.output.mkdir(parents=True, exist_ok=True)
    drawn = photographs(options.folder)
    cv2.imwrite(str(options.output / "photographs.jpg"), drawn[..., ::-1], quality)
    if options.video:
        drawn = people(options.video)
        cv2.imwrite(str(options.output / "people.jpg"), drawn[..., ::-1], quality)
    return 0


if __name__ == "__main__":
    sys.exit(main())
