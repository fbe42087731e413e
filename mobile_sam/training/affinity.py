"""Teaches the image encoder which pixels belong together, while the whole model trains.

A prompt says something about one object; the labels of a scene say for every pixel whether its
neighbours belong to the same one. A layer that only the training has reads that from the image
embedding, so that the encoder learns from all of the picture (the affinities of Liu et al. 2018,
"Affinity derivation and graph merge for instance segmentation").
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# In cells of the low-resolution masks, right and down.
_DISTANCES = (1, 3, 8)
_SCALE = 4  # low-resolution masks have so many cells to one of the embedding
_SEAM_WEIGHT = 4.0


class AffinityHead(nn.Module):
    """Logits of "belongs to the same object as the cell further right (or down)"."""

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.read = nn.Conv2d(embedding_dim, 2 * len(_DISTANCES) * _SCALE**2, kernel_size=1)

    def forward(self, embedding: Tensor) -> Tensor:
        """Returns float (B, 2 D, 4 h, 4 w) for an embedding (B, dim, h, w)."""
        return F.pixel_shuffle(self.read(embedding), _SCALE)


def affinity_loss(logits: Tensor, scene_labels: Tensor) -> Tensor:
    """Returns the cross entropy, a scalar, in which cells at a seam count more.

    Args:
        logits: float (B, 2 D, m, m), as from `AffinityHead`.
        scene_labels: int (B, S, S), S a multiple of m.
    """
    step = scene_labels.shape[-1] // logits.shape[-1]
    labels = scene_labels[:, step // 2 :: step, step // 2 :: step]
    losses, weights = [], []
    for i, distance in enumerate(_DISTANCES):
        right = labels[:, :, distance:] == labels[:, :, :-distance]
        down = labels[:, distance:] == labels[:, :-distance]
        found = (logits[:, 2 * i, :, :-distance], logits[:, 2 * i + 1, :-distance])
        for values, same in zip(found, (right, down), strict=True):
            weight = torch.where(same, 1.0, _SEAM_WEIGHT)
            entropy = F.binary_cross_entropy_with_logits(values, same.float(), reduction="none")
            losses.append((entropy * weight).sum())
            weights.append(weight.sum())
    return torch.stack(losses).sum() / torch.stack(weights).sum()
