"""The whole model: image encoder, prompt encoder and mask decoder."""

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobile_sam.modeling.config import SamConfig
from mobile_sam.modeling.image_encoder import ImageEncoder
from mobile_sam.modeling.mask_decoder import MaskDecoder
from mobile_sam.modeling.prompt_encoder import PointLabel, PromptEncoder
from mobile_sam.modeling.transformer import all_seen

# Mean and standard deviation of ImageNet's RGB pixels, which SAM normalises by.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)

SINGLE = slice(0, 1)
"""The mask for a clear prompt."""
MULTI = slice(1, None)
"""The masks for an ambiguous prompt."""
ALL = slice(None)
NOTHING = -20.0
"""Logits of padding that are left out: surely no object."""


@lru_cache
def _pixel_statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """Kept, because on a GPU each new one would be a transfer."""
    mean, std = torch.tensor([PIXEL_MEAN, PIXEL_STD], device=device).view(2, 1, 3, 1, 1)
    return mean, std


def normalised(pixels: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Returns what the image encoder takes.

    Args:
        pixels: (B, 3, H, W), RGB, 0 to 255, any dtype; H and W at most `size_hw`.
        size_hw: of the input; zeros are added at the right and at the bottom.

    Returns:
        float32 (B, 3, *size_hw), channels last in memory.
    """
    mean, std = _pixel_statistics(pixels.device)
    height, width = pixels.shape[-2:]
    values = (pixels.float() - mean) / std
    padded = F.pad(values, (0, size_hw[1] - width, 0, size_hw[0] - height))
    return padded.contiguous(memory_format=torch.channels_last)


def with_padding(logits: Tensor) -> Tensor:
    """Returns logits (..., m, m) of logits (..., r, m) of the first rows."""
    missing = logits.shape[-1] - logits.shape[-2]
    return F.pad(logits, (0, 0, 0, missing), value=NOTHING) if missing else logits


class Sam(nn.Module):
    """A model of the architecture `config`, with random weights at first."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = ImageEncoder(config)
        self.prompt_encoder = PromptEncoder(config)
        self.mask_decoder = MaskDecoder(config)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.mask_decoder.iou_token.weight.device

    def encode(self, pixels: Tensor) -> Tensor:
        """Encodes pictures that are already scaled to fit the input.

        Args:
            pixels: (B, 3, H, W), RGB, 0 to 255, any dtype; H and W at most `image_size`. What is
                missing at the right and at the bottom is padded.

        Returns:
            float (B, embedding_dim, embedding_size, embedding_size).
        """
        side = self.config.image_size
        return self.image_encoder(normalised(pixels, (side, side)))

    def prepare(self, picture_hw: tuple[int, int]) -> None:
        """Does nothing: all sizes are padded to one."""

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
        """Decodes N objects in one batch.

        Args:
            embedding: float (N or 1, embedding_dim, h, w).
            points: float (N, T, 2), x and y in pixels of the scaled picture; (0, 0) is the centre
                of its first pixel, as in SAM.
            labels: integer (N, T) of `PointLabel`.
            mask_logits: float (N, 1, mask_size, mask_size), mask prompts; None: nobody has one.
            has_mask: bool (N,), whose `mask_logits` count; None: all of them.
            masks: `SINGLE`, `MULTI` or `ALL`.
            rows: of cells, from the top, that hold the picture; None: all. Logits of the others
                are left out, and `NOTHING` instead.

        Returns:
            Logits, float (N, M, mask_size, mask_size), over the padded input, and predicted IoU,
            float (N, M).
        """
        tokens, prompt_map, seen = self.embed_prompts(points, labels, mask_logits, has_mask)
        positions = self.prompt_encoder.positions()
        decoder = self.mask_decoder
        logits, iou = decoder(embedding, positions, tokens, prompt_map, seen, masks, rows)
        return with_padding(logits), iou

    def embed_prompts(
        self,
        points: Tensor,
        labels: Tensor,
        mask_logits: Tensor | None = None,
        has_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Returns `prompt_tokens`, `prompt_map` and `seen`, as `MaskDecoder` takes them; arguments
        as for `decode`."""
        encoder = self.prompt_encoder
        return (
            encoder.embed_points((points + 0.5) / self.config.image_size, labels),
            encoder.embed_masks(labels.shape[0], mask_logits, has_mask),
            all_seen(labels, PointLabel.NONE, self.mask_decoder.own_tokens),
        )
