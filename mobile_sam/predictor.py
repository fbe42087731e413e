"""Encode an image once, then segment what prompts point at. No hidden state."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mobile_sam.backends import Backend, load_backend
from mobile_sam.choices import DEFAULT_WEIGHTS
from mobile_sam.mask_choice import choose_masks
from mobile_sam.modeling import ALL, MULTI, SINGLE
from mobile_sam.postprocess import STABILITY_OFFSET, image_logits, regions_from_logits
from mobile_sam.prompts import Prompt, batch_prompts
from mobile_sam.segments import Segments, no_segments

_CERTAIN = 10.0  # logit of a mask prompt where there is no doubt


@dataclass(frozen=True, eq=False)
class Embedding:
    """An encoded image.

    Attributes:
        features: float (1, C, h, w), on the model's device.
        image_size: height and width of the image, in pixels.
        scaled_size: height and width of the picture that the model saw, without padding.
    """

    features: Tensor
    image_size: tuple[int, int]
    scaled_size: tuple[int, int]


def scaled_size(image_hw: tuple[int, int], image_size: int) -> tuple[int, int]:
    """Returns height and width of an image scaled so that its longer side is `image_size`."""
    scale = image_size / max(image_hw)
    return tuple(max(1, int(side * scale + 0.5)) for side in image_hw)  # type: ignore[return-value]


class Predictor:
    """Runs a model on images and prompts."""

    def __init__(self, model: Backend) -> None:
        """Takes a model in evaluation mode, such as `load_backend` or `load_sam` returns."""
        self.model = model

    @classmethod
    def from_weights(
        cls,
        weights: str | os.PathLike[str] = DEFAULT_WEIGHTS,
        device: str = "auto",
        backend: str = "auto",
        precision: str = "auto",
        encode_padding: bool = False,
    ) -> Predictor:
        """Loads weights; arguments and errors are those of `load_backend`."""
        return cls(load_backend(weights, device, backend, precision, encode_padding))

    @property
    def device(self) -> str:
        """Where the model runs."""
        return str(self.model.device)

    @property
    def input_size(self) -> int:
        """Side of the model's square input, in pixels."""
        return self.model.config.image_size

    @torch.inference_mode()
    def encode(self, image: NDArray[np.uint8]) -> Embedding:
        """Encodes an image: uint8 (H, W, 3), RGB.

        Raises:
            ValueError: another shape or dtype, or no pixels.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"image is {image.dtype} {image.shape}, not uint8 (H, W, 3)")
        if image.size == 0:
            raise ValueError(f"image of shape {image.shape} has no pixels")
        height, width = image.shape[:2]
        scaled_hw = scaled_size((height, width), self.input_size)
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
        if scaled_hw != (height, width):
            # Of bytes, torch gives what Pillow does, which is what SAM was trained with, but for
            # a level or two where it makes smaller.
            pixels = F.interpolate(pixels, scaled_hw, mode="bilinear", antialias=True)
        features = self.model.encode(pixels.to(self.model.device))
        return Embedding(features, (height, width), scaled_hw)

    def prepare(self, image_size: tuple[int, int]) -> None:
        """Makes the model ready for images of a size, height and width, which may take seconds.

        Without it, a compiled backend is ready with the third image of a size, or with the first if
        it was compiled before. While one thread compiles, another may go on; it is only slower.
        """
        self.model.prepare(scaled_size(image_size, self.input_size))

    @torch.inference_mode()
    def decode(
        self, embedding: Embedding, prompts: Sequence[Prompt], multimask: bool | None = None
    ) -> Segments:
        """Segments one object for each prompt, all of them in one batch.

        Args:
            embedding: of the image that the prompts are about.
            prompts: any number of them, of any kinds.
            multimask: True takes the best of three masks by predicted IoU, False the mask for
                clear prompts, None whichever `choose_masks` finds to be meant.

        Raises:
            ValueError: a mask prompt of another size.
        """
        if not prompts:
            return self.nothing(embedding.image_size)
        ambiguous = [prompt.is_ambiguous if multimask is None else multimask for prompt in prompts]
        if multimask is None and not all(ambiguous):
            logits, iou = self.logits(embedding, prompts, ALL)
            chosen = choose_masks(logits, iou, torch.tensor(ambiguous, device=iou.device))
        else:
            logits, iou = self.logits(embedding, prompts, MULTI if all(ambiguous) else SINGLE)
            chosen = iou.argmax(dim=1)
        each = torch.arange(len(prompts), device=iou.device)
        return self.segments(logits[each, chosen], iou[each, chosen], embedding)

    @torch.inference_mode()
    def candidates(self, embedding: Embedding, prompt: Prompt) -> Segments:
        """Segments one object in all the ways that its prompt may be meant.

        Returns:
            The decoder's three masks for an ambiguous prompt, in its own order.

        Raises:
            ValueError: a mask prompt of another size.
        """
        logits, iou = self.logits(embedding, [prompt], MULTI)
        return self.segments(logits[0], iou[0], embedding)

    @torch.inference_mode()
    def logits(
        self, embedding: Embedding, prompts: Sequence[Prompt], masks: slice = ALL
    ) -> tuple[Tensor, Tensor]:
        """Decodes, and leaves the choice between the masks to the caller.

        Args:
            embedding: of the image that the prompts are about.
            prompts: N of them, at least one.
            masks: `SINGLE`, `MULTI` or `ALL`.

        Returns:
            Low-resolution logits, float (N, M, m, m), over the padded input, and predicted IoU,
            float (N, M). Well below the picture, all logits are `NOTHING`.

        Raises:
            ValueError: a mask prompt of another size.
        """
        height, width = embedding.image_size
        scaled_height, scaled_width = embedding.scaled_size
        scale_xy = (scaled_width / width, scaled_height / height)
        batch = batch_prompts(prompts, scale_xy, self.model.config.mask_size)
        device = self.model.device
        return self.model.decode(
            embedding.features,
            batch.points.to(device),
            batch.labels.to(device),
            None if batch.mask_logits is None else batch.mask_logits.to(device),
            None if batch.has_mask is None else batch.has_mask.to(device),
            masks,
            self._rows(embedding),
        )

    def _rows(self, embedding: Embedding) -> int:
        """Returns how many rows of cells hold the picture, and what its last pixels are
        interpolated with."""
        config = self.model.config
        return min(-(-embedding.scaled_size[0] // config.stride) + 1, config.embedding_size)

    def nothing(self, image_size: tuple[int, int]) -> Segments:
        """Returns what `decode` does without prompts, for an image (height, width) not encoded."""
        return no_segments(image_size, self.model.config.mask_size)

    @torch.inference_mode()
    def segments(
        self,
        logits: Tensor,
        predicted_iou: Tensor,
        embedding: Embedding,
        stability_offset: float = STABILITY_OFFSET,
    ) -> Segments:
        """Makes segments of logits (N, m, m) and predicted IoU (N,), such as `logits` returns."""
        regions = regions_from_logits(
            logits, self.input_size, embedding.scaled_size, embedding.image_size, stability_offset
        )
        return Segments(
            image_size=embedding.image_size,
            boxes=regions.boxes.astype(np.float32),
            crops=regions.crops,
            predicted_iou=predicted_iou.float().cpu().numpy(),
            stability=regions.stability,
            logits=logits.float().cpu().numpy(),
        )

    @torch.inference_mode()
    def image_logits(self, logits: Tensor, embedding: Embedding) -> Tensor:
        """Returns logits (N, m, m), such as `logits` returns, at the image's size: (N, H, W)."""
        return image_logits(logits, self.input_size, embedding.scaled_size, embedding.image_size)

    def mask_logits(self, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Makes a mask prompt of a mask.

        Args:
            mask: bool (H, W), of the size of the image that it is a prompt for.

        Returns:
            float32 (m, m), low-resolution logits, as `Prompt.mask_logits` takes them.
        """
        side = self.model.config.mask_size
        height, width = scaled_size(mask.shape, side)
        shares = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        logits = np.full((side, side), -_CERTAIN, np.float32)
        logits[:height, :width] = (2 * shares - 1) * _CERTAIN
        return logits
