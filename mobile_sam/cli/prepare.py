"""`mobile-sam prepare`: does once what takes long, so that a robot's start does not wait for it."""

from __future__ import annotations

import argparse
import time
from typing import Any

from mobile_sam.cli.errors import UserError
from mobile_sam.cli.model_options import add_model_options, load_predictor
from mobile_sam.quoting import first_line


def add_command(commands: Any) -> None:
    """Adds the command to a parser's subparsers."""
    parser = commands.add_parser(
        "prepare",
        help="compile a model for sizes of images, and keep it",
        description="Makes a model ready for images of some sizes. What a backend compiles is kept "
        "in the cache (~/.cache/mobile_sam, or $MOBILE_SAM_CACHE), where programs and the node "
        "find it when they start. Else they compile beside their work, with the first images.",
    )
    parser.add_argument("sizes", nargs="+", metavar="WIDTHxHEIGHT", type=_size, help="as 640x480")
    add_model_options(parser.add_argument_group("model"))
    parser.set_defaults(run=run)


def _size(text: str) -> tuple[int, int]:
    width, x, height = text.partition("x")
    if not (x and width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT, as 640x480")
    return int(height), int(width)


def run(options: argparse.Namespace) -> int:
    """Prepares and says how long it took; returns the exit status."""
    predictor = load_predictor(options)
    for height, width in options.sizes:
        print(f"{width}x{height}: ", end="", flush=True)
        begin = time.monotonic()
        try:
            predictor.prepare((height, width))
        except RuntimeError as error:  # of the backend, or for lack of memory
            raise UserError(
                f"{options.weights}: cannot be prepared: {first_line(error)}"
            ) from error
        print(f"ready after {time.monotonic() - begin:.1f} s", flush=True)
    return 0
