"""Where half precision goes wrong: the image encoder layer by layer, against fp32.

    python benchmarks/half_precision.py --weights mobile_sam

fp16 ends at 65504, bf16 has 8 bits of precision. For every block: the largest value in fp32, and
how far it is off when everything up to there is computed in half precision, as the root of the
mean square in shares of the values' own. Runs on the CPU as well as on a GPU.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import sys

import torch
from torch import Tensor, nn

from mobile_sam.benchmark import machine
from mobile_sam.checkpoints import load_sam
from mobile_sam.modeling.image_encoder import ImageEncoder
from mobile_sam.modeling.sam import normalised
from mobile_sam.scenes import MovingScene


def outputs(encoder: ImageEncoder, pixels: Tensor) -> dict[str, Tensor]:
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


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--weights", default="demo")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--all", action="store_true", help="every layer, not only the worst")
    options = parser.parse_args()
    sam = load_sam(options.weights, options.device)
    side = sam.config.image_size
    image = torch.from_numpy(MovingScene(7, (side, side), 6).frame(0).image)
    pixels = normalised(image.permute(2, 0, 1)[None].to(options.device), (side, side))
    exact = outputs(sam.image_encoder, pixels)
    errors: dict[str, list[float]] = {name: [] for name in exact}
    for dtype in (torch.float16, torch.bfloat16):
        half = copy.deepcopy(sam.image_encoder).to(dtype)
        for name, found in outputs(half, pixels.to(dtype)).items():
            rms = exact[name].square().mean().sqrt().clamp(min=1e-12)
            errors[name].append(float((found - exact[name]).square().mean().sqrt() / rms))
    print(f"{machine()}, weights {options.weights}, {datetime.date.today()}\n")
    print("| layer | largest value, fp32 | error in fp16 | error in bf16 |\n|---|---|---|---|")
    blocks = [n for n in exact if n.split(".")[-2:-1] == ["blocks"] or n.startswith("neck")]
    highest = sorted(exact, key=lambda name: -float(exact[name].abs().max()))[:5]
    shown = list(exact) if options.all else [n for n in exact if n in {*blocks, *highest}]
    for name in shown:
        fp16, bf16 = errors[name]
        print(f"| {name} | {float(exact[name].abs().max()):.1f} | {fp16:.2%} | {bf16:.2%} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
