"""From low-resolution logits to masks of the image's size, and what is measured on masks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

STABILITY_OFFSET = 1.0


@dataclass(frozen=True, eq=False)
class Regions:
    """N masks, each only within its box.

    Attributes:
        boxes: int64 (N, 4), tight and half-open: x_min, y_min, x_max, y_max in pixels of the image,
            zeros where a mask is empty.
        crops: N masks, bool (h, w) each.
        stability: float32 (N,), the IoU of each mask cut a little above and a little below 0, on
            the logits of the image's size, and 0 where that is empty (Kirillov et al. 2023,
            arXiv:2304.02643, appendix B).
    """

    boxes: NDArray[np.int64]
    crops: tuple[NDArray[np.bool_], ...]
    stability: NDArray[np.float32]


@lru_cache(maxsize=64)
def resize_matrix(mask_size: int, image_size: int, scaled: int, original: int) -> Tensor:
    """Returns SAM's two resizes of logits along one axis, as a matrix.

    SAM interpolates the logits bilinearly to the padded input, cuts off the padding, and
    interpolates again to the size of the image. Both are linear and separable, so that one
    matrix for each axis does all of it at once.

    Args:
        mask_size: logits along the axis.
        image_size: pixels of the padded input.
        scaled: pixels of the picture within it.
        original: pixels of the image.

    Returns:
        float32 (original, mask_size).
    """
    padded = linear_weights(_positions(image_size, mask_size), mask_size)
    picture = linear_weights(_positions(original, scaled), scaled)
    return (picture @ padded[:scaled]).float()


@lru_cache(maxsize=64)
def _made_of(
    mask_size: int, image_size: int, scaled: int, original: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns which logits each pixel along an axis is made of: the first, and the one after the
    last, int64 (original,) each; arguments as `resize_matrix`."""
    used = resize_matrix(mask_size, image_size, scaled, original).numpy() > 0
    return used.argmax(1), mask_size - used[:, ::-1].argmax(1)


def _logits_of(first: int, end: int, made_of: tuple[NDArray[np.int64], NDArray[np.int64]]) -> slice:
    """Returns which logits the pixels of a half-open range are made of."""
    return slice(int(made_of[0][first]), int(made_of[1][end - 1])) if end else slice(0)


def _positions(pixels: int, of: int) -> Tensor:
    """Returns the centres of `pixels` pixels in cells of another raster with `of`, (pixels,)."""
    return (torch.arange(pixels, dtype=torch.float64) + 0.5) * of / pixels - 0.5


def linear_weights(positions: Tensor, cells: int) -> Tensor:
    """Returns how a value between cells is made of theirs by linear interpolation.

    Args:
        positions: float (P,), in cells; 0 is the centre of the first. Beyond the first and the
            last centre, their values go on.
        cells: number of them.

    Returns:
        float (P, cells); each row adds up to 1.
    """
    inside = positions.clamp(0, cells - 1)[:, None]
    centres = torch.arange(cells, device=positions.device, dtype=positions.dtype)
    return (1 - (inside - centres).abs()).clamp(min=0)


def image_logits(
    logits: Tensor, image_size: int, scaled_hw: tuple[int, int], original_hw: tuple[int, int]
) -> Tensor:
    """Returns logits of the image's size, float (N, H, W); arguments as `regions_from_logits`."""
    down, across = _resize_matrices(logits, image_size, scaled_hw, original_hw)
    return down @ logits @ across.T


def _resize_matrices(
    logits: Tensor, image_size: int, scaled_hw: tuple[int, int], original_hw: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    down, across = (
        resize_matrix(logits.shape[-1], image_size, scaled, original).to(logits)
        for scaled, original in zip(scaled_hw, original_hw, strict=True)
    )
    return down, across


def regions_from_logits(
    logits: Tensor,
    image_size: int,
    scaled_hw: tuple[int, int],
    original_hw: tuple[int, int],
    stability_offset: float = STABILITY_OFFSET,
) -> Regions:
    """Computes masks of the image's size, each only where its object is.

    Args:
        logits: float (N, m, m), over the padded input.
        image_size: side of the padded input, in pixels.
        scaled_hw: height and width of the picture within it.
        original_hw: height and width of the image.
        stability_offset: how far above and below 0 the stability is measured.
    """
    down, across = _resize_matrices(logits, image_size, scaled_hw, original_hw)
    made_down, made_across = (
        _made_of(logits.shape[-1], image_size, scaled, original)
        for scaled, original in zip(scaled_hw, original_hw, strict=True)
    )
    # Interpolated logits exceed a threshold only where a logit they are made of does.
    high = logits > -stability_offset
    rows = (high.any(2).to(down) @ (down > 0).to(down).T > 0).cpu().numpy()
    columns = (high.any(1).to(down) @ (across > 0).to(down).T > 0).cpu().numpy()
    boxes = np.zeros((len(logits), 4), np.int64)
    stability = np.zeros(len(logits), np.float32)
    crops = []
    for i in range(len(logits)):
        (top, bottom), (left, right) = _span(rows[i]), _span(columns[i])
        y, x = _logits_of(top, bottom, made_down), _logits_of(left, right, made_across)
        wide = logits[i, y, x] @ across[left:right, x].T
        part = (down[top:bottom, y] @ wide).cpu().numpy()
        lax = np.count_nonzero(part > -stability_offset)
        if lax:
            stability[i] = np.count_nonzero(part > stability_offset) / lax
        mask = part > 0
        (y0, y1), (x0, x1) = _span(np.any(mask, 1)), _span(np.any(mask, 0))
        if y1 > y0:
            boxes[i] = (left + x0, top + y0, left + x1, top + y1)
        crops.append(mask[y0:y1, x0:x1])
    return Regions(boxes, tuple(crops), stability)


def _span(present: ArrayLike) -> tuple[int, int]:
    """Returns the half-open range from the first to the last True, or (0, 0)."""
    indices = np.flatnonzero(present)
    return (int(indices[0]), int(indices[-1]) + 1) if len(indices) else (0, 0)


def low_resolution_stability(logits: Tensor, offset: float) -> Tensor:
    """Returns the IoU of each mask cut `offset` above and below 0, on low-resolution logits.

    Args:
        logits: float (..., m, m).
        offset: how far above and below.

    Returns:
        float32 (...), 0 where the mask is empty.
    """
    strict = (logits > offset).sum((-1, -2))
    lax = (logits > -offset).sum((-1, -2))
    return strict / lax.clamp(min=1)
