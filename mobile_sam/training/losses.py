"""SAM's losses: of the masks, and of the decoder's own estimate of their IoU.

Kirillov et al. 2023, arXiv:2304.02643, appendix A, "Losses": of the masks for an ambiguous prompt
only the best one learns. Cross entropy over the object's own size stands in for the focal loss,
so that small objects count as much as large ones.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

_LEAST_CELLS = 16.0


def mask_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Returns cross entropy plus dice of each mask.

    Args:
        logits: float (N, M, m, m).
        targets: float (N, m, m), 0 to 1.

    Returns:
        float (N, M).
    """
    wanted = targets[:, None].expand_as(logits)
    cells = targets.sum((1, 2))[:, None]
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum((2, 3))
    shares = logits.sigmoid()
    overlap = (shares * wanted).sum((2, 3))
    dice = 1 - (2 * overlap + 1) / (shares.sum((2, 3)) + cells + 1)
    return dice + entropy / (2 * cells + _LEAST_CELLS)


@torch.no_grad()
def measured_iou(logits: Tensor, targets: Tensor) -> Tensor:
    """Returns the IoU, float (N, M), of masks (N, M, m, m) with targets (N, m, m)."""
    mask, wanted = logits > 0, (targets > 0.5)[:, None]
    overlap = (mask & wanted).sum((2, 3))
    return overlap / (mask | wanted).sum((2, 3)).clamp(min=1)


def sam_loss(
    logits: Tensor, predicted_iou: Tensor, targets: Tensor, ambiguous: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the loss, a scalar, and the IoU of each mask, float (N, M).

    Args:
        logits: float (N, M, m, m), all masks of the decoder: first the one for clear prompts.
        predicted_iou: float (N, M).
        targets: float (N, m, m).
        ambiguous: bool (N,), for which the best of the other masks is wanted as well.
    """
    each = mask_loss(logits, targets)
    best = each[:, 1:].min(dim=1).values
    # A clear prompt is no reason for the other masks to be useless: a tenth for their best.
    of_masks = torch.where(ambiguous, 0.3 * each[:, 0] + best, each[:, 0] + 0.1 * best)
    iou = measured_iou(logits, targets)
    return of_masks.mean() + F.mse_loss(predicted_iou, iou), iou
