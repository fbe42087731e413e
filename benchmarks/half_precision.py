"""Where half precision goes wrong: the image encoder layer by layer, against fp32.

    python benchmarks/half_precision.py --weights mobile_sam

fp16 ends at 65504, bf16 has 8 bits of precision. For every block: the largest value in fp32, and
how far it is off when everything up to there is computed in half precision, as the root of the
mean square in shares of the values' own. With the official weights, and upstream's package there,
of its code as well. Runs on the CPU as well as on a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import datetime
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mobile_sam.benchmark import machine
from mobile_sam.checkpoints import WEIGHTS, load_sam
from mobile_sam.modeling.sam import normalised
from mobile_sam.pictures import first_image
from mobile_sam.predictor import scaled_size
from mobile_sam.scenes import MovingScene


def outputs(encoder: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
    """Returns what comes out of every block, and within blocks of every layer, in order."""
    kept: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(
            lambda _, __, output, name=name: kept.__setitem__(name, output.float())
        )
        for name, module in encoder.named_modules()
        if name and not isinstance(module, (nn.Identity, nn.Dropout))
    ]
    with torch.inference_mode():
        encoder(pixels)
    for hook in hooks:
        hook.remove()
    return kept


def upstream_encoder(path: Path) -> nn.Module | None:
    """Upstream's own encoder with these weights, or None: its package is for tests only."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            from mobilesam_lite import mobile_sam
    except ImportError:
        return None
    return mobile_sam.sam_model_registry["vit_t"](checkpoint=str(path)).image_encoder.eval()


def halved(encoder: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of the encoder in half precision."""
    half = copy.deepcopy(encoder).to(dtype)
    for module in half.modules():
        if isinstance(getattr(module, "ab", None), Tensor):
            module.ab = module.ab.to(dtype)  # upstream's attention biases, which are no buffer
    return half


@dataclass
class Layer:
    """What was found of one layer: its largest value, and its errors in shares, by type."""

    largest: float = 0.0
    errors: dict[torch.dtype, list[float]] = field(default_factory=dict)

    def error(self, dtype: torch.dtype) -> str:
        """The mean over all pictures."""
        return f"{np.mean(self.errors[dtype]):.2%}"


def measure(
    encoder: nn.Module, inputs: Sequence[Tensor], dtypes: Sequence[torch.dtype]
) -> dict[str, Layer]:
    """Returns each layer of an encoder, in order."""
    layers: dict[str, Layer] = {}
    for pixels in inputs:
        exact = outputs(encoder, pixels)
        for name, value in exact.items():
            layer = layers.setdefault(name, Layer())
            layer.largest = max(layer.largest, float(value.abs().max()))
        for dtype in dtypes:
            for name, found in outputs(halved(encoder, dtype), pixels.to(dtype)).items():
                rms = exact[name].square().mean().sqrt().clamp(min=1e-12)
                error = float((found - exact[name]).square().mean().sqrt() / rms)
                layers[name].errors.setdefault(dtype, []).append(error)
    return layers


def scaled(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Returns a picture with a longer side of `side` pixels."""
    height, width = scaled_size(image.shape[:2], side)
    return cv2.resize(image, (width, height)).astype(np.uint8, copy=False)


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--weights", default="demo")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--pictures", nargs="+", type=Path, default=[], help="photographs, not a drawn scene"
    )
    parser.add_argument("--all", action="store_true", help="every layer, not only the worst")
    options = parser.parse_args()
    sam = load_sam(options.weights, options.device)
    side = sam.config.image_size
    images = [scaled(first_image(path), side) for path in options.pictures]
    images = images or [MovingScene(7, (side, side), 6).frame(0).image]
    inputs = [
        normalised(torch.from_numpy(i).permute(2, 0, 1)[None].to(options.device), (side, side))
        for i in images
    ]
    layers = measure(sam.image_encoder, inputs, (torch.float16, torch.bfloat16))
    names = ", ".join(path.name for path in options.pictures) or "a drawn scene"
    print(f"{machine()}, weights {options.weights}, {names}, {datetime.date.today()}\n")
    print("| layer | largest value, fp32 | error in fp16 | error in bf16 |\n|---|---|---|---|")
    blocks = [n for n in layers if n.split(".")[-2:-1] == ["blocks"] or n.startswith("neck")]
    highest = sorted(layers, key=lambda name: -layers[name].largest)[:5]
    for name in layers if options.all else [n for n in layers if n in {*blocks, *highest}]:
        found = layers[name]
        fp16, bf16 = found.error(torch.float16), found.error(torch.bfloat16)
        print(f"| {name} | {found.largest:.1f} | {fp16} | {bf16} |")
    entry = WEIGHTS.get(options.weights)
    encoder = upstream_encoder(entry.path) if entry and not entry.packaged else None
    if encoder is not None:
        print("\n| upstream's own code | largest value, fp32 | error in fp16 |\n|---|---|---|")
        theirs = measure(encoder.to(options.device), inputs, (torch.float16,))
        for name in ("layers.3", "neck.0", "neck.1", "neck.2", "neck.3"):
            print(f"| {name} | {theirs[name].largest:.1f} | {theirs[name].error(torch.float16)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
