"""A model without weights, which paints what it is asked: so that a test can tell from a mask what
was asked, and from its predicted IoU of which picture. Everything around it is real."""

from __future__ import annotations

import torch
from torch import Tensor

from mobile_sam import Predictor
from mobile_sam.modeling import ALL, PointLabel, SamConfig

SIDE = 64
_INSIDE = 10.0


class Painter:
    """A `Backend` for pictures of 64 pixels, whose logits have the size of the picture.

    The mask of a box is the box, that of points their pixels, that of a mask the mask. Predicted
    IoU is the mean of the picture divided by 255, so that a picture of one grey tells its number.
    """

    def __init__(self) -> None:
        self.config = SamConfig(image_size=SIDE, encoder_strides=(1, 1, 1))
        self.device = torch.device("cpu")

    def encode(self, pixels: Tensor) -> Tensor:
        """See `Sam.encode`: the mean as the only feature."""
        return pixels.float().mean().view(1, 1, 1, 1) / 255

    def prepare(self, picture_hw: tuple[int, int]) -> None:
        """Has nothing to prepare."""

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
        """See `Sam.decode`: four times the same, and nothing below the picture anyway."""
        count = len(labels)
        logits = torch.full((count, SIDE, SIDE), -_INSIDE)
        for i in range(count):
            corners = {int(label): point for label, point in zip(labels[i], points[i], strict=True)}
            low = corners.get(PointLabel.BOX_MINIMUM)
            high = corners.get(PointLabel.BOX_MAXIMUM)
            if low is not None and high is not None:
                (left, top), (right, bottom) = low.round().int(), high.round().int()
                logits[i, max(top, 0) : bottom, max(left, 0) : right] = _INSIDE
            for label, (x, y) in zip(labels[i], points[i], strict=True):
                if label == PointLabel.FOREGROUND:
                    logits[i, int(y), int(x)] = _INSIDE
            if mask_logits is not None and (has_mask is None or has_mask[i]):
                logits[i] = torch.maximum(logits[i], mask_logits[i, 0])
        iou = embedding.view(1, 1).expand(count, 4)
        return logits[:, None].expand(-1, 4, -1, -1)[:, masks], iou[:, masks]


def painter() -> Predictor:
    """A predictor that paints."""
    return Predictor(Painter())
