"""The options that choose a model and what runs it, the same for all commands."""

from __future__ import annotations

import argparse

from mobile_sam.choices import BACKENDS, DEFAULT_WEIGHTS, PRECISIONS
from mobile_sam.predictor import Predictor


def add_model_options(parser: argparse._ActionsContainer) -> None:
    """Adds an option for each argument of `load_backend`."""
    parser.add_argument(
        "--weights",
        default=DEFAULT_WEIGHTS,
        help="name, path of a file, or directory of an ONNX export (%(default)s)",
    )
    parser.add_argument("--device", default="auto", help="as cpu or cuda:0 (%(default)s)")
    parser.add_argument(
        "--backend", choices=BACKENDS, default="auto", help="what runs the model (%(default)s)"
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="auto", help="of the image encoder (%(default)s)"
    )
    parser.add_argument(
        "--encode-padding",
        action="store_true",
        help="encode a picture's padding as well, as SAM does: slower, and hardly different",
    )


def load_predictor(options: argparse.Namespace) -> Predictor:
    """Loads what was chosen; errors are those of `load_backend`."""
    return Predictor.from_weights(
        options.weights,
        options.device,
        options.backend,
        options.precision,
        options.encode_padding,
    )
