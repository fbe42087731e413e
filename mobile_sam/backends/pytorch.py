"""Runs a model with PyTorch, on any of its devices."""

from __future__ import annotations

import torch
from torch import Tensor

from mobile_sam.backends.picture_encoders import Compiler, Encode, PictureEncoders
from mobile_sam.modeling import ALL, Sam
from mobile_sam.modeling.picture_encoder import PictureEncoder
from mobile_sam.modeling.sam import normalised

_PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
_AT_ONCE = 4


def in_precision(encoder: PictureEncoder, precision: str) -> Encode:
    """Returns what runs an encoder on pixels in "fp32", "bf16" or "fp16", and returns float32."""
    dtype = _PRECISIONS[precision]

    def encode(pixels: Tensor) -> Tensor:
        region = normalised(pixels, encoder.region_hw)
        with torch.autocast(pixels.device.type, dtype, enabled=dtype is not None):
            return encoder(region).float()

    return encode


class TorchSam:
    """A model on a device; takes and gives what `Sam` does."""

    def __init__(
        self,
        sam: Sam,
        precision: str = "fp32",
        encode_padding: bool = False,
        compiler: Compiler | None = None,
    ) -> None:
        """Takes a model in evaluation mode.

        Args:
            sam: the model.
            precision: as for `load_backend`.
            encode_padding: as for `load_backend`.
            compiler: makes of an encoder what runs it faster, for those who have it.

        Raises:
            ValueError: a precision that the device does not have.
        """
        if precision == "fp16" and sam.device.type == "cpu":
            raise ValueError("precision 'fp16' cannot be used on the CPU: take bf16 or fp32")
        self.sam, self.config = sam, sam.config
        self._encoders = PictureEncoders(
            sam, encode_padding, lambda encoder: in_precision(encoder, precision), compiler
        )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.sam.device

    def encode(self, pixels: Tensor) -> Tensor:
        """See `Sam.encode`."""
        return self._encoders.encode(pixels)

    def prepare(self, picture_hw: tuple[int, int]) -> None:
        """See `Backend.prepare`."""
        self._encoders.prepare(picture_hw)

    def decode(
        self,
        embedding: Tensor,
        points: Tensor,
        labels: Tensor,
        mask_logits: Tensor | None = None,
        has_mask: Tensor | None = None,
        masks: slice = ALL,
        rows: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `Sam.decode`; always in fp32. On a CPU a few objects at once, whose maps of all cells
        its caches hold."""
        count = labels.shape[0]
        at_once = _AT_ONCE if self.device.type == "cpu" else count
        decoded = []
        for first in range(0, count, at_once):
            part = slice(first, first + at_once)
            decoded.append(
                self.sam.decode(
                    embedding if len(embedding) == 1 else embedding[part],
                    points[part],
                    labels[part],
                    None if mask_logits is None else mask_logits[part],
                    None if has_mask is None else has_mask[part],
                    masks,
                    rows,
                )
            )
        logits, iou = zip(*decoded, strict=True)
        return torch.cat(logits), torch.cat(iou)
