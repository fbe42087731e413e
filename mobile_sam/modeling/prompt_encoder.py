"""SAM's prompt encoder: points, boxes and masks to tokens and to a map over the image.

Kirillov et al. 2023, arXiv:2304.02643, section 3 and appendix A. Boxes are two labelled points,
and every object has the same number of points, padded with `PointLabel.NONE`: so that objects
with different kinds of prompt go through the decoder in one batch.
"""

import math
from enum import IntEnum

import torch
from torch import Tensor, nn

from mobile_sam.modeling.channels_last import LayerNorm2d
from mobile_sam.modeling.config import SamConfig


class PointLabel(IntEnum):
    """What a point of a prompt stands for."""

    NONE = -2
    """Nothing: fills the batch up; the decoder does not see it."""
    NOT_A_POINT = -1
    """SAM's own filler, which the decoder sees: every prompt without a box has one."""
    BACKGROUND = 0
    FOREGROUND = 1
    BOX_MINIMUM = 2
    """The corner of the box with the smallest x and y."""
    BOX_MAXIMUM = 3
    """The corner of the box with the greatest x and y."""


class PositionEmbedding(nn.Module):
    """Random Fourier features of positions (Tancik et al. 2020, arXiv:2006.10739)."""

    def __init__(self, dim: int, scale: float) -> None:
        super().__init__()
        frequencies = torch.randn(2, dim // 2) * scale
        self.register_buffer("positional_encoding_gaussian_matrix", frequencies)
        self.positional_encoding_gaussian_matrix: Tensor

    def forward(self, positions: Tensor) -> Tensor:
        """Embeds positions: float (..., 2), x and y in 0 to 1 of the input, to (..., dim)."""
        phases = (2 * positions - 1) @ self.positional_encoding_gaussian_matrix * (2 * math.pi)
        return torch.cat([phases.sin(), phases.cos()], dim=-1)


class PromptEncoder(nn.Module):
    """Prompts to what the mask decoder takes."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        dim, mask_dim = config.embedding_dim, config.mask_prompt_dim
        self.embedding_size = config.embedding_size
        self.pe_layer = PositionEmbedding(dim, config.position_scale)
        # A list of four tables of one row, because that is how SAM's checkpoints have it.
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, dim)
        self.no_mask_embed = nn.Embedding(1, dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_dim // 4, kernel_size=2, stride=2),
            LayerNorm2d(mask_dim // 4),
            nn.GELU(),
            nn.Conv2d(mask_dim // 4, mask_dim, kernel_size=2, stride=2),
            LayerNorm2d(mask_dim),
            nn.GELU(),
            nn.Conv2d(mask_dim, dim, kernel_size=1),
        )

    def positions(self) -> Tensor:
        """Returns the embedding of the centre of each cell, float (1, dim, h, w)."""
        weight = self.no_mask_embed.weight
        centres = (torch.arange(self.embedding_size, device=weight.device) + 0.5).to(weight.dtype)
        centres = centres / self.embedding_size
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        return self.pe_layer(torch.stack([x, y], dim=-1)).permute(2, 0, 1)[None]

    def embed_points(self, positions: Tensor, labels: Tensor) -> Tensor:
        """Embeds labelled points.

        Args:
            positions: float (N, T, 2), x and y in 0 to 1 of the padded input.
            labels: integer (N, T) of `PointLabel`.

        Returns:
            float (N, T, dim).
        """
        rows = [self.not_a_point_embed, *self.point_embeddings]
        table = torch.cat([row.weight for row in rows])  # row i is label i - 1
        is_point = (labels >= 0)[..., None]
        return self.pe_layer(positions) * is_point + table[labels.clamp(min=-1) + 1]

    def embed_masks(self, count: int, masks: Tensor | None, has_mask: Tensor | None) -> Tensor:
        """Embeds mask prompts.

        Args:
            count: N, the number of objects.
            masks: float (N, 1, 4 h, 4 w), low-resolution logits; None if nobody has one.
            has_mask: bool (N,), whose masks count; None: all of them.

        Returns:
            float (N, dim, h, w), or (1, dim, 1, 1) if nobody has a mask.
        """
        without = self.no_mask_embed.weight.reshape(1, -1, 1, 1)
        if masks is None:
            return without
        embedded = self.mask_downscaling(masks)
        if has_mask is None:
            return embedded
        return torch.where(has_mask.view(count, 1, 1, 1), embedded, without)
