"""`mobile-sam segment`: an image, a folder or a video in; masks, overlays and COCO JSON out."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mobile_sam.cli.errors import UserError
from mobile_sam.cli.model_options import add_model_options, load_predictor
from mobile_sam.cli.prompt_options import (
    BOX_FORM,
    POINT_FORM,
    POINTS_FORM,
    add_everything_options,
    box_prompt,
    everything_settings,
    point_prompt,
    points_prompt,
)
from mobile_sam.coco import Boxes, CocoError, CocoWriter, read_boxes
from mobile_sam.everything import EverythingSettings, segment_everything
from mobile_sam.overlay import label_image, overlay_image
from mobile_sam.pictures import Picture, PictureError, image_files, open_pictures
from mobile_sam.predictor import Predictor
from mobile_sam.prompts import Prompt
from mobile_sam.segments import Segments
from mobile_sam.videos import VideoFile

_OUTPUTS = ("masks", "overlays", "coco")
_ALPHA = 0.5
_BAR_AFTER_SECONDS = 1.0
_SAVE_SECONDS = 300.0  # between two savings of what was found so far
_EXAMPLES = """
examples:
  mobile-sam segment picture.jpg --box 210,140,330,300 --output out
  mobile-sam segment picture.jpg --point 400,90 --points "120,80 !150,80"
  mobile-sam segment photographs/ --everything --weights mobile_sam
  mobile-sam segment video.mp4 --boxes-from detections.json --write overlays

exit status:
  0  all was done
  1  something could not be done; standard error says what
  2  the command line was wrong
"""


def add_command(commands: Any) -> None:
    """Adds the command to a parser's subparsers."""
    parser = commands.add_parser(
        "segment",
        help="segment objects in an image, a folder of images or a video",
        description="Writes DIR/masks/NAME_1.png and so on (255 on the object), an overlay "
        "DIR/overlays/NAME.png (of a video: DIR/overlay.mp4), and DIR/segments.json with all "
        "masks in COCO's form; of pictures that differ only in their endings, NAME has those as "
        "well. segments.json is written every five minutes and at the end, also where Ctrl-C or an "
        "error ends it. Coordinates are pixels of the image, x to the right, y down; a box's "
        "maxima lie just outside of it. Without --box, --point, --points, --boxes-from or "
        "--everything there is nothing to segment.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "input", type=Path, metavar="INPUT", help="an image, a folder of images or a video"
    )
    what = parser.add_argument_group("what to segment")
    what.add_argument(
        "--box",
        type=box_prompt,
        action="append",
        dest="prompts",
        default=[],
        metavar=BOX_FORM,
        help="an object by its box; may be given again, for another object",
    )
    what.add_argument(
        "--point",
        type=point_prompt,
        action="append",
        dest="prompts",
        metavar=POINT_FORM,
        help="an object by a point on it; may be given again, for another object",
    )
    what.add_argument(
        "--points",
        type=points_prompt,
        action="append",
        dest="prompts",
        metavar=f'"{POINTS_FORM}"',
        help="one object by several points; ! before those that are not on it",
    )
    what.add_argument(
        "--boxes-from",
        type=Path,
        metavar="COCO.json",
        help="the boxes of each image, by its file name (of a video: NAME_000000.png and so on)",
    )
    what.add_argument(
        "--everything",
        action="store_true",
        help="all objects; together with --boxes-from one for each box, after the same filters",
    )
    add_everything_options(parser.add_argument_group("everything"))
    model = parser.add_argument_group("model and output")
    add_model_options(model)
    model.add_argument(
        "--output", type=Path, default=Path(), metavar="DIR", help="made if it is not there (.)"
    )
    model.add_argument(
        "--write",
        type=_outputs,
        default=set(_OUTPUTS),
        metavar="WHAT,WHAT",
        help=f"some of {', '.join(_OUTPUTS)} (all of them)",
    )
    parser.set_defaults(run=run)


def _outputs(text: str) -> set[str]:
    chosen = set(text.split(","))
    unknown = chosen - set(_OUTPUTS)
    if unknown:
        raise argparse.ArgumentTypeError(f"{sorted(unknown)[0]!r} is none of {', '.join(_OUTPUTS)}")
    return chosen


def run(options: argparse.Namespace) -> int:
    """Segments; returns the exit status."""
    if not (options.prompts or options.boxes_from or options.everything):
        raise UserError(
            "nothing to segment: give --box, --point, --points, --boxes-from or --everything"
        )
    if options.everything and options.prompts:
        raise UserError("--everything needs no --box, --point or --points: leave one of them out")
    settings = everything_settings(options)
    try:
        boxes, categories = read_boxes(options.boxes_from) if options.boxes_from else ({}, None)
        pictures = open_pictures(options.input)
    except (CocoError, PictureError) as error:
        raise UserError(str(error)) from error
    predictor = load_predictor(options)
    coco = CocoWriter(categories)
    damaged = objects = seen = with_boxes = 0
    with (
        _Writer(
            options.output, options.write, pictures.rate, _shared_stems(options.input)
        ) as writer,
        _saving(coco, options) as save_now_and_then,
    ):
        bar = tqdm(
            pictures,
            total=pictures.count or None,
            unit="picture",
            delay=_BAR_AFTER_SECONDS,
            disable=pictures.count == 1,
        )
        for picture in bar:
            if picture.image is None:
                damaged += 1
                tqdm.write(f"mobile-sam: {picture.name}: damaged, left out", file=sys.stderr)
                continue
            of_picture = boxes.get(picture.name)
            segments, of_categories = _segment(
                predictor, picture.image, options, settings, of_picture
            )
            coco.add(picture.name, segments, of_categories)
            save_now_and_then()
            writer.write(picture, segments)
            objects += int(np.count_nonzero(segments.area))
            seen += 1
            with_boxes += of_picture is not None
    if boxes and not with_boxes:
        raise UserError(f"{options.boxes_from}: has no picture of {options.input}")
    print(f"{objects} objects in {seen} pictures, in {options.output}")
    return 1 if damaged else 0


def _segment(
    predictor: Predictor,
    image: NDArray[np.uint8],
    options: argparse.Namespace,
    settings: EverythingSettings,
    boxes: Boxes | None,
) -> tuple[Segments, NDArray[np.int64] | None]:
    """Returns the segments of one picture, and their categories if these are known."""
    if options.everything and options.boxes_from is None:
        with _progress() as progress:
            found = segment_everything(predictor, image, settings, progress=progress)
        return found.segments, None
    xyxy = boxes.xyxy if boxes is not None else np.zeros((0, 4), np.float32)
    if options.everything:
        found = segment_everything(predictor, image, settings, xyxy)
        return found.segments, None
    prompts = [*options.prompts, *(Prompt(box=box) for box in xyxy)]
    segments = (
        predictor.decode(predictor.encode(image), prompts)
        if prompts
        else predictor.nothing(image.shape[:2])
    )
    if boxes is None or options.prompts:
        return segments, None
    return segments, boxes.categories


@contextmanager
def _saving(coco: CocoWriter, options: argparse.Namespace) -> Iterator[Callable[[], None]]:
    """Saves what was found at the end, also when that is an error or Ctrl-C; and whenever it is
    asked and long enough after the last time."""
    path = options.output / "segments.json"
    saved_at = time.monotonic()

    def save_now_and_then() -> None:
        nonlocal saved_at
        if "coco" in options.write and time.monotonic() - saved_at > _SAVE_SECONDS:
            try:
                coco.save(path)
            except OSError as error:  # there may be room again at the end
                tqdm.write(f"mobile-sam: {error}; going on", file=sys.stderr)
            saved_at = time.monotonic()

    try:
        yield save_now_and_then
    finally:
        if "coco" in options.write:
            coco.save(path)


def _shared_stems(folder: Path) -> set[str]:
    """Returns the names without endings that several pictures of a folder have."""
    if not folder.is_dir():
        return set()
    stems = Counter(file.stem for file in image_files(folder))
    return {stem for stem, count in stems.items() if count > 1}


@contextmanager
def _progress() -> Iterator[Any]:
    with tqdm(unit="prompt", leave=False, delay=_BAR_AFTER_SECONDS) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


class _Writer:
    """Writes masks and overlays as they come."""

    def __init__(self, directory: Path, wanted: set[str], rate: float, shared: set[str]) -> None:
        """Begins; pictures whose names are `shared` but for their endings keep these."""
        self._directory, self._wanted, self._shared = directory, wanted, shared
        self._video = VideoFile(directory / "overlay.mp4", rate) if rate else None
        directory.mkdir(parents=True, exist_ok=True)
        for name in ("masks", "overlays"):
            if name in wanted and not (rate and name == "overlays"):
                (directory / name).mkdir(exist_ok=True)

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *error: object) -> None:
        if self._video is not None:
            self._video.__exit__(*error)

    def write(self, picture: Picture, segments: Segments) -> None:
        assert picture.image is not None
        stem = Path(picture.name).stem
        if stem in self._shared:
            stem = picture.name
        if "masks" in self._wanted:
            for i, mask in enumerate(segments.masks):
                path = self._directory / "masks" / f"{stem}_{i + 1}.png"
                _write_image(path, mask.astype(np.uint8) * np.uint8(255))
        if "overlays" in self._wanted:
            labels = label_image(segments.crops, segments.boxes, segments.image_size)
            overlay = overlay_image(picture.image, labels, _ALPHA)
            if self._video is not None:
                self._video.write(overlay)
            else:
                _write_image(self._directory / "overlays" / f"{stem}.png", overlay[..., ::-1])


def _write_image(path: Path, image: NDArray[np.uint8]) -> None:
    if not cv2.imwrite(str(path), image):
        raise UserError(f"{path}: cannot be written")
