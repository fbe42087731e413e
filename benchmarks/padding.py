"""What leaving the padding out changes: masks with and without it, by the margin that is encoded.

    python benchmarks/padding.py --weights demo --scenes 60

Boxes of all objects in held-out scenes, 4:3 and 16:9. For each margin: IoU of the masks with those
of the padded reference, of all and of objects that lie at the edge to the padding, and the mean
IoU with the truth, which says whether a mask that differs is worse.
"""

from __future__ import annotations

import argparse
import datetime
import sys

import numpy as np
import torch

from mobile_sam.benchmark import machine
from mobile_sam.checkpoints import load_sam
from mobile_sam.modeling import Sam
from mobile_sam.modeling.picture_encoder import PictureEncoder
from mobile_sam.modeling.sam import normalised
from mobile_sam.predictor import Embedding, Predictor
from mobile_sam.prompts import Prompt
from mobile_sam.segments import tight_box
from mobile_sam.training.examples import Example, SceneExamples

_SHAPES = {"4:3": 3 / 4, "16:9": 9 / 16}
_MARGINS = (0, 1, 2, 4)  # cells of the embedding
_SEED = 77


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the IoU of two masks, 1 where both are empty."""
    union = (one | other).sum()
    return float((one & other).sum() / union) if union else 1.0


class Comparison:
    """Masks of one margin, held against the reference and the truth."""

    def __init__(self, sam: Sam, picture_hw: tuple[int, int], margin: int) -> None:
        stride = sam.config.stride
        self._sam = sam
        self._encoder = PictureEncoder(
            sam.image_encoder, sam.config, picture_hw[0], margin * stride
        )
        self.with_reference: list[float] = []
        self.at_the_edge: list[float] = []
        self.with_truth: list[float] = []

    @property
    def share(self) -> float:
        """Of the padded input's area that is encoded."""
        height, width = self._encoder.region_hw
        return height * width / self._sam.config.image_size**2

    @torch.inference_mode()
    def add(self, example: Example, reference: np.ndarray, embedding: Embedding) -> None:
        """Segments the objects of a scene again."""
        pixels = torch.from_numpy(example.image).permute(2, 0, 1)[None]
        features = self._encoder(normalised(pixels, self._encoder.region_hw))
        prompts = [Prompt(box=tight_box(mask)) for mask in example.masks]
        own = Embedding(features, embedding.image_size, embedding.scaled_size)
        masks = Predictor(self._sam).decode(own, prompts).masks
        for mask, wanted, truth in zip(masks, reference, example.masks, strict=True):
            self.with_reference.append(overlap(mask, wanted))
            self.with_truth.append(overlap(mask, truth))
            if wanted[-1].any():
                self.at_the_edge.append(self.with_reference[-1])


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--weights", default="demo")
    parser.add_argument("--scenes", type=int, default=60)
    options = parser.parse_args()
    sam = load_sam(options.weights)
    side = sam.config.image_size
    print(f"{machine()}, weights {options.weights}, {options.scenes} scenes of each shape, "
          f"{datetime.date.today()}\n")  # fmt: skip
    print("| picture | margin, cells | of the input encoded | IoU with the padded masks | lowest | "
          "under 0.9 | at the edge: mean | lowest | IoU with the truth | padded |\n"
          + "|---" * 10 + "|")  # fmt: skip
    for name, ratio in _SHAPES.items():
        picture_hw = (round(side * ratio), side)
        examples = SceneExamples((_SEED,), picture_hw)
        comparisons = {margin: Comparison(sam, picture_hw, margin) for margin in _MARGINS}
        padded: list[float] = []
        for number in range(options.scenes):
            example = examples.get(number)
            predictor = Predictor(sam)
            embedding = predictor.encode(example.image)
            prompts = [Prompt(box=tight_box(mask)) for mask in example.masks]
            reference = predictor.decode(embedding, prompts).masks
            padded += [overlap(*pair) for pair in zip(reference, example.masks, strict=True)]
            for comparison in comparisons.values():
                comparison.add(example, reference, embedding)
        for margin, found in comparisons.items():
            values, edge = np.array(found.with_reference), np.array(found.at_the_edge)
            print(f"| {name} | {margin} | {found.share:.0%} | {values.mean():.4f} | "
                  f"{values.min():.3f} | {(values < 0.9).sum()} of {len(values)} | "
                  f"{edge.mean():.4f} of {len(edge)} | {edge.min():.3f} | "
                  f"{np.mean(found.with_truth):.4f} | {np.mean(padded):.4f} |")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
