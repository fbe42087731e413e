"""The model on a GPU beside upstream's code: one picture, a picture with 8 boxes, 16 pictures.

    python benchmarks/gpu.py

Random weights of MobileSAM's size; upstream is mobilesam-lite from PyPI, as its documentation
uses it. All are measured in turn, on the same pictures, and waited for.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from against_upstream import boxes_of, make_upstream

from mobile_sam.benchmark import Way, finished, interleaved_medians, machine, make_backend, ways
from mobile_sam.checkpoints import load_sam
from mobile_sam.predictor import Predictor
from mobile_sam.prompts import Prompt
from mobile_sam.scenes import MovingScene

_SIDE = 1024
_BATCH = 16


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--repeats", type=int, default=50)
    options = parser.parse_args()
    device = options.device
    if device.startswith("cuda") and not torch.cuda.is_available():
        print("there is no GPU here", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as directory:
        weights = Path(directory) / "random.pt"
        package, model = make_upstream(weights)
        sam = load_sam(weights)
    theirs = package.SamPredictor(model.to(device))
    kinds = [way for way in ways() if way.device == device] or [Way("torch", device, "fp32")]
    ours = {str(way): Predictor(make_backend(sam, way)) for way in kinds}
    square = MovingScene(7, (_SIDE, _SIDE), 6).frame(0).image
    frame = MovingScene(7, (720, 1280), 6).frame(0).image
    boxes = boxes_of((720, 1280), 8)
    prompts = [Prompt(box=box) for box in boxes]
    scaled = theirs.transform.apply_boxes_torch(torch.from_numpy(boxes), frame.shape[:2])
    pixels = torch.from_numpy(np.stack([square] * _BATCH)).permute(0, 3, 1, 2).to(device)

    def upstream_boxes() -> None:
        theirs.set_image(frame)
        theirs.predict_torch(None, None, boxes=scaled.to(device), multimask_output=False)

    @torch.inference_mode()
    def upstream_batch() -> None:
        model.image_encoder(model.preprocess(pixels))

    @torch.inference_mode()
    def batch(predictor: Predictor) -> None:
        predictor.model.encode(pixels)

    tasks: dict[str, tuple[Callable[[], object], Callable[[Predictor], object]]] = {
        f"encode {_SIDE}x{_SIDE}": (lambda: theirs.set_image(square), lambda p: p.encode(square)),
        "encode 1280x720 and 8 boxes": (
            upstream_boxes,
            lambda p: p.decode(p.encode(frame), prompts, multimask=False).masks,
        ),
        f"encode {_BATCH} of {_SIDE}x{_SIDE}": (upstream_batch, batch),
    }

    def waited(run: Callable[[], object]) -> Callable[[], None]:
        def both() -> None:
            run()
            finished(device)

        return both

    print(f"{machine()}, {datetime.date.today()}\n")
    print("| task | way | upstream, ms | ours, ms | ratio |\n|---|---|---|---|---|")
    for name, (upstream, own) in tasks.items():
        runs = {"": waited(upstream)}
        runs |= {way: waited(lambda r=own, p=p: r(p)) for way, p in ours.items()}  # type: ignore[misc]
        medians = interleaved_medians(runs, options.repeats, warm_ups=3)
        reference = medians.pop("")
        for way, time in medians.items():
            print(f"| {name} | {way} | {reference:.2f} | {time:.2f} | {reference / time:.2f} |",
                  flush=True)  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
