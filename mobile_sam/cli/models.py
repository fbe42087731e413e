"""The commands about models: export, weights, shrink, info."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from mobile_sam.checkpoints import WEIGHTS, download, load_sam, save_safetensors, verify
from mobile_sam.choices import DEFAULT_WEIGHTS
from mobile_sam.cli.errors import UserError
from mobile_sam.export import export_onnx


def add_commands(commands: Any) -> None:
    """Adds the commands to a parser's subparsers."""
    export = commands.add_parser(
        "export",
        help="write a model as ONNX files",
        description="Writes encoder.onnx and decoder.onnx into DIR. Their inputs and outputs are "
        "described in the documentation, and DIR works wherever weights are asked for.",
    )
    export.add_argument("weights", help="name or path of the weights")
    export.add_argument("directory", type=Path, metavar="DIR")
    export.set_defaults(run=_export)
    weights = commands.add_parser(
        "weights",
        help="list, download or verify weights",
        description="Looks after the weights that are known by name. Downloads lie in "
        "~/.cache/mobile_sam, or $MOBILE_SAM_CACHE.",
    )
    weights.add_argument("action", choices=("list", "download", "verify"))
    weights.add_argument("name", nargs="?", choices=tuple(WEIGHTS), help="without it: all")
    weights.set_defaults(run=_weights)
    shrink = commands.add_parser(
        "shrink",
        help="write weights with eight bits a number",
        description="Writes the same model in a quarter of the bytes, to go on a robot with its "
        "software. It is as fast as before, and hardly different.",
    )
    shrink.add_argument("weights", help="name or path of the weights")
    shrink.add_argument("file", type=Path, metavar="FILE.safetensors")
    shrink.set_defaults(run=_shrink)
    info = commands.add_parser(
        "info",
        help="say what a set of weights is",
        description="Prints architecture, input size and number of parameters.",
    )
    info.add_argument(
        "weights", nargs="?", default=DEFAULT_WEIGHTS, help="name or path (%(default)s)"
    )
    info.set_defaults(run=_info)


def _export(options: argparse.Namespace) -> int:
    sam = load_sam(options.weights)
    print(f"exporting {options.weights}: about a minute", flush=True)
    for path in export_onnx(sam, options.directory, options.weights):
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


def _weights(options: argparse.Namespace) -> int:
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
    return 0


def _shrink(options: argparse.Namespace) -> int:
    if options.file.suffix != ".safetensors":  # by which it is known when it is read
        raise UserError(f"{options.file}: has to end in .safetensors")
    save_safetensors(load_sam(options.weights), options.file, torch.int8)
    print(f"{options.file}: {options.file.stat().st_size / 1e6:.1f} MB")
    return 0


def _info(options: argparse.Namespace) -> int:
    sam = load_sam(options.weights)
    config = sam.config
    parts = {
        "image encoder": sam.image_encoder,
        "prompt encoder": sam.prompt_encoder,
        "mask decoder": sam.mask_decoder,
    }
    print(f"input: {config.image_size} pixels")
    print(
        f"embedding: {config.embedding_dim} channels, "
        f"{config.embedding_size} x {config.embedding_size} cells"
    )
    print(f"low-resolution logits: {config.mask_size} x {config.mask_size}")
    for name, part in parts.items():
        print(f"{name}: {sum(p.numel() for p in part.parameters()) / 1e6:.2f} M parameters")
    return 0
