"""The options of `LoopSettings` on a command line, the same for all that trains."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable

from mobile_sam.training.loop import LoopSettings

_HELP = {
    "steps": "updates of the weights",
    "rate": "greatest learning rate",
    "warmup": "steps in which the rate rises",
    "weight_decay": "of matrices and kernels",
    "accumulate": "batches a step and process",
    "average": "share of the old average of the weights that stays at each step",
    "clip": "greatest norm of the gradient",
    "precision": "fp32, bf16 or fp16, of the forward pass",
    "seed": "of all that is random",
    "optimizer": "adamw or muon",
    "freeze_after": "share of the steps after which batch norms keep their statistics",
    "save_seconds": "between two savings",
}


def at_least(least: int) -> Callable[[str], int]:
    """Returns an argparse type: whole numbers from `least` on."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    return number


def add_loop_options(parser: argparse.ArgumentParser) -> None:
    """Adds an option for each field of `LoopSettings`."""
    group = parser.add_argument_group("training")
    for field in dataclasses.fields(LoopSettings):
        required = field.default is dataclasses.MISSING
        group.add_argument(
            f"--{field.name.replace('_', '-')}",
            type={"int": int, "float": float}.get(str(field.type), str),
            required=required,
            default=None if required else field.default,
            help=_HELP[field.name] + ("" if required else " (%(default)s)"),
        )


def loop_settings(options: argparse.Namespace) -> LoopSettings:
    """Returns what was given.

    Raises:
        ValueError: a value outside of its range.
    """
    names = [field.name for field in dataclasses.fields(LoopSettings)]
    return LoopSettings(**{name: getattr(options, name) for name in names})
