"""The command `mobile-sam`: segment an image, and look after weights."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mobile_sam.checkpoints import WEIGHTS, WeightsError, download, load_sam, verify
from mobile_sam.predictor import Predictor, Segments
from mobile_sam.prompts import Prompt

_COLOUR = (255, 64, 64)


class UserError(Exception):
    """Something that the user asked for cannot be done; the message says why."""


def _numbers(text: str, count: int, what: str) -> list[float]:
    parts = text.split(",")
    try:
        values = [float(part) for part in parts]
    except ValueError:
        values = []
    if len(values) != count:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return values


def _box(text: str) -> Prompt:
    try:
        return Prompt(box=_numbers(text, 4, "X_MIN,Y_MIN,X_MAX,Y_MAX"))  # type: ignore[arg-type]
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _point(text: str) -> Prompt:
    return Prompt(points=[_numbers(text, 2, "X,Y")])  # type: ignore[arg-type]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mobile-sam", description="Segments what boxes and points point at in an image."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    segment = commands.add_parser(
        "segment",
        help="segment objects in an image",
        description="Writes a mask of each object, DIR/mask_1.png and so on, and DIR/overlay.png. "
        "Coordinates are pixels of the image.",
    )
    segment.add_argument("image", type=Path)
    segment.add_argument(
        "--box", type=_box, action="append", default=[], metavar="X_MIN,Y_MIN,X_MAX,Y_MAX",
        help="an object by its box; may be given again",
    )  # fmt: skip
    segment.add_argument(
        "--point", type=_point, action="append", default=[], metavar="X,Y",
        help="an object by a point on it; may be given again",
    )  # fmt: skip
    segment.add_argument("--weights", default="demo", help="name or path (%(default)s)")
    segment.add_argument("--device", default="auto", help="as cpu or cuda:0 (%(default)s)")
    segment.add_argument("--output", type=Path, default=Path(), metavar="DIR")
    weights = commands.add_parser("weights", help="list, download or verify weights")
    weights.add_argument("action", choices=("list", "download", "verify"))
    weights.add_argument("name", nargs="?", choices=tuple(WEIGHTS), help="without it: all")
    info = commands.add_parser("info", help="say what a set of weights is")
    info.add_argument("weights", nargs="?", default="demo", help="name or path (%(default)s)")
    return parser


def _read_image(path: Path) -> NDArray[np.uint8]:
    data = np.fromfile(path, np.uint8) if path.is_file() else None
    if data is None:
        raise UserError(f"{path}: no such file")
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise UserError(f"{path}: not an image that can be read")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def _write_image(path: Path, image: NDArray[np.uint8]) -> None:
    if not cv2.imwrite(str(path), image):
        raise UserError(f"{path}: cannot be written")


def _overlay(image: NDArray[np.uint8], segments: Segments) -> NDArray[np.uint8]:
    result = image.copy()
    union = segments.masks.any(axis=0)
    result[union] = (result[union] // 2 + np.array(_COLOUR, np.uint8) // 2).astype(np.uint8)
    return result


def _segment(options: argparse.Namespace) -> None:
    prompts = [*options.box, *options.point]
    if not prompts:
        raise UserError("nothing to segment: give --box or --point")
    image = _read_image(options.image)
    predictor = Predictor.from_weights(options.weights, options.device)
    segments = predictor.decode(predictor.encode(image), prompts)
    options.output.mkdir(parents=True, exist_ok=True)
    for i, mask in enumerate(segments.masks):
        path = options.output / f"mask_{i + 1}.png"
        _write_image(path, mask.astype(np.uint8) * np.uint8(255))
        x_min, y_min, x_max, y_max = segments.boxes[i].astype(int)
        print(
            f"{path}: {segments.area[i]} pixels in {x_min},{y_min},{x_max},{y_max}, "
            f"predicted IoU {segments.predicted_iou[i]:.2f}"
        )
    overlay = options.output / "overlay.png"
    _write_image(overlay, _overlay(image, segments)[..., ::-1])
    print(overlay)


def _weights(options: argparse.Namespace) -> None:
    for entry in [WEIGHTS[options.name]] if options.name else WEIGHTS.values():
        if options.action == "download":
            download(entry)
        if options.action != "list":
            verify(entry)
            print(f"{entry.name}: {entry.path}, verified")
            continue
        there = entry.path if entry.path.is_file() else "not downloaded"
        print(f"{entry.name}: {entry.description}")
        print(f"  {there}\n  source: {entry.source}\n  licence: {entry.licence}")
        print(f"  git blob: {entry.git_blob}")


def _info(options: argparse.Namespace) -> None:
    sam = load_sam(options.weights)
    parts = {"image encoder": sam.image_encoder, "prompt encoder": sam.prompt_encoder,
             "mask decoder": sam.mask_decoder}  # fmt: skip
    print(f"input: {sam.config.image_size} pixels, logits: {sam.config.mask_size}")
    for name, part in parts.items():
        print(f"{name}: {sum(p.numel() for p in part.parameters()) / 1e6:.2f} M parameters")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status: 0, 1 if something cannot be done, 2 for wrong use."""
    options = _parser().parse_args(arguments)
    run = {"segment": _segment, "weights": _weights, "info": _info}[options.command]
    try:
        run(options)
    except (UserError, WeightsError, ValueError, OSError) as error:
        print(f"mobile-sam: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
