"""Which of the decoder's four masks is meant, where the caller does not say."""

from __future__ import annotations

import torch
from torch import Tensor

from mobile_sam.postprocess import low_resolution_stability

# SAM 2's rule and figures (Ravi et al. 2024, arXiv:2408.00714; "dynamic multimask via stability"
# in its configurations).
_STABILITY = 0.98
_OFFSET = 0.05


def choose_masks(logits: Tensor, predicted_iou: Tensor, ambiguous: Tensor) -> Tensor:
    """Chooses one mask an object.

    For an ambiguous prompt (one point and nothing else), the one of the masks 1 to 3 with the
    greatest predicted IoU. For a clear one (a box, several points, a mask), mask 0; but where
    that is unstable (its IoU with itself, cut 0.05 above and below 0, is under 0.98), the best of
    the others as well.

    Args:
        logits: float (N, 4, m, m), all masks of the decoder.
        predicted_iou: float (N, 4).
        ambiguous: bool (N,).

    Returns:
        int64 (N,).
    """
    unstable = low_resolution_stability(logits[:, 0], _OFFSET) < _STABILITY
    best = 1 + predicted_iou[:, 1:].argmax(dim=1)
    return torch.where(ambiguous | unstable, best, torch.zeros_like(best))
