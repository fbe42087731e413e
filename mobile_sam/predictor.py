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

from mobile_sam.checkpoints import load_sam
from mobile_sam.modeling import ALL, MULTI, SINGLE, Sam
from mobile_sam.postprocess import masks_from_logits, stability
from mobile_sam.prompts import Prompt, batch_prompts

_CERTAIN = 10.0  # logit of a mask prompt where there is no doubt


@dataclass(frozen=True, eq=False)
class Embedding:
    """An encoded image.

    features: float (1, C, h, w), on the model's device.
    image_size: height and width of the image, in pixels.
    scaled_size: height and width of the picture that the model saw, without padding.
    """

    features: Tensor
    image_size: tuple[int, int]
    scaled_size: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Segments:
    """N segmented objects, in the order of their prompts.

    masks: bool (N, H, W), of the image's size.
    boxes: float32 (N, 4), the masks' tight half-open boxes, x_min, y_min, x_max, y_max in
        pixels; zeros where a mask is empty.
    area: int64 (N,), pixels in each mask.
    predicted_iou: float32 (N,), the model's own estimate of the masks' quality, about 0 to 1.
    stability: float32 (N,), 0 to 1, see `postprocess.stability`.
    logits: float32 (N, m, m), low-resolution, over the padded input; fit for `Prompt.mask_logits`.
    """

    masks: NDArray[np.bool_]
    boxes: NDArray[np.float32]
    area: NDArray[np.int64]
    predicted_iou: NDArray[np.float32]
    stability: NDArray[np.float32]
    logits: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.masks)


def scaled_size(image_hw: tuple[int, int], image_size: int) -> tuple[int, int]:
    """Returns height and width of an image scaled so that its longer side is `image_size`."""
    scale = image_size / max(image_hw)
    return tuple(max(1, int(side * scale + 0.5)) for side in image_hw)  # type: ignore[return-value]


class Predictor:
    """Runs a model on images and prompts."""

    def __init__(self, sam: Sam) -> None:
        """Takes a model in evaluation mode, such as `load_sam` returns."""
        self.sam = sam

    @classmethod
    def from_weights(
        cls, weights: str | os.PathLike[str] = "demo", device: str = "auto"
    ) -> Predictor:
        """Loads weights by name or path.

        Args:
            weights: see `load_sam`.
            device: a torch device, or "auto": the first GPU if there is one, else the CPU.

        Raises:
            WeightsError: the weights cannot be had or used.
            ValueError: torch does not know the device, or has it not.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError) as error:
            cause = str(error).split("\n")[0]
            raise ValueError(f"device {device!r} cannot be used: {cause}") from error
        return cls(load_sam(weights, device))

    @property
    def device(self) -> str:
        """Where the model runs."""
        return str(self.sam.device)

    @property
    def input_size(self) -> int:
        """Side of the model's square input, in pixels."""
        return self.sam.config.image_size

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
            # Of bytes, torch gives what Pillow does, which is what SAM was trained with.
            pixels = F.interpolate(pixels, scaled_hw, mode="bilinear", antialias=True)
        features = self.sam.encode(pixels.to(self.sam.device))
        return Embedding(features, (height, width), scaled_hw)

    @torch.inference_mode()
    def decode(
        self, embedding: Embedding, prompts: Sequence[Prompt], multimask: bool | None = None
    ) -> Segments:
        """Segments one object for each prompt, all of them in one batch.

        Args:
            embedding: of the image that the prompts are about.
            prompts: any number of them, of any kinds.
            multimask: True takes the best of three masks by predicted IoU, False the mask for
                clear prompts; None, SAM's advice: best of three for a single point without
                anything else.

        Raises:
            ValueError: a mask prompt of another size.
        """
        if not prompts:
            return self.nothing(embedding.image_size)
        ambiguous = [prompt.is_ambiguous if multimask is None else multimask for prompt in prompts]
        slots = MULTI if all(ambiguous) else ALL if any(ambiguous) else SINGLE
        logits, iou = self._decode(embedding, prompts, slots)
        if slots is ALL:
            wants = torch.tensor(ambiguous, device=iou.device)[:, None]
            first = torch.arange(iou.shape[1], device=iou.device)[None] == 0
            chosen = iou.masked_fill(wants == first, -torch.inf).argmax(dim=1)
        else:
            chosen = iou.argmax(dim=1)
        each = torch.arange(len(prompts), device=iou.device)
        return self._segments(logits[each, chosen], iou[each, chosen], embedding)

    @torch.inference_mode()
    def candidates(self, embedding: Embedding, prompt: Prompt) -> Segments:
        """Segments one object in all the ways that its prompt may be meant.

        Returns:
            The decoder's three masks for an ambiguous prompt, in its own order.

        Raises:
            ValueError: a mask prompt of another size.
        """
        logits, iou = self._decode(embedding, [prompt], MULTI)
        return self._segments(logits[0], iou[0], embedding)

    def _decode(
        self, embedding: Embedding, prompts: Sequence[Prompt], slots: slice
    ) -> tuple[Tensor, Tensor]:
        """Returns logits (N, M, m, m) and predicted IoU (N, M)."""
        height, width = embedding.image_size
        scaled_height, scaled_width = embedding.scaled_size
        scale_xy = (scaled_width / width, scaled_height / height)
        batch = batch_prompts(prompts, scale_xy, self.sam.config.mask_size)
        device = self.sam.device
        return self.sam.decode(
            embedding.features,
            batch.points.to(device),
            batch.labels.to(device),
            None if batch.mask_logits is None else batch.mask_logits.to(device),
            None if batch.has_mask is None else batch.has_mask.to(device),
            slots,
        )

    def nothing(self, image_size: tuple[int, int]) -> Segments:
        """Returns what `decode` does without prompts, for an image (height, width) not encoded."""
        side = self.sam.config.mask_size
        return Segments(
            masks=np.zeros((0, *image_size), bool),
            boxes=np.zeros((0, 4), np.float32),
            area=np.zeros(0, np.int64),
            predicted_iou=np.zeros(0, np.float32),
            stability=np.zeros(0, np.float32),
            logits=np.zeros((0, side, side), np.float32),
        )

    def _segments(self, logits: Tensor, iou: Tensor, embedding: Embedding) -> Segments:
        masks, boxes = masks_from_logits(
            logits, self.input_size, embedding.scaled_size, embedding.image_size
        )
        return Segments(
            masks=masks.cpu().numpy(),
            boxes=boxes.numpy().astype(np.float32),
            area=masks.sum((1, 2)).cpu().numpy(),
            predicted_iou=iou.float().cpu().numpy(),
            stability=stability(logits).float().cpu().numpy(),
            logits=logits.float().cpu().numpy(),
        )

    def mask_logits(self, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Makes a mask prompt of a mask.

        Args:
            mask: bool (H, W), of the size of the image that it is a prompt for.

        Returns:
            float32 (m, m), low-resolution logits, as `Prompt.mask_logits` takes them.
        """
        side = self.sam.config.mask_size
        height, width = scaled_size(mask.shape, side)
        shares = cv2.resize(
            mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA
        )
        logits = np.full((side, side), -_CERTAIN, np.float32)
        logits[:height, :width] = (2 * shares - 1) * _CERTAIN
        return logits
