"""Masks as run lengths, in the way of COCO: column by column, the first run is background.

The compressed form is COCO's as well (`pycocotools` reads it): each run from the fourth on as the
difference to the one two before, in characters of five bits, least significant first; a sixth bit
says that more follow.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_OFFSET = 48  # characters begin at "0"
_BITS = 5
_MORE = 1 << _BITS
_SIGN = 1 << (_BITS - 1)


def counts_from_mask(mask: NDArray[np.bool_]) -> list[int]:
    """Returns the run lengths of a mask, bool (H, W)."""
    flat = np.asarray(mask, bool).ravel(order="F")
    if not flat.size:
        return []
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]]))
    return ([0] if flat[0] else []) + runs.tolist()


def mask_from_counts(counts: Sequence[int], size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """Returns the mask, bool (H, W), of these run lengths.

    Raises:
        ValueError: they do not add up to H * W, or one is negative.
    """
    height, width = size_hw
    if sum(counts) != height * width or min(counts, default=0) < 0:
        raise ValueError(
            f"run lengths with a sum of {sum(counts)} and a least of {min(counts, default=0)} are "
            f"none of a mask of {height} x {width} pixels"
        )
    is_object = np.arange(len(counts)) % 2 == 1
    return np.repeat(is_object, counts).reshape(width, height).T


def compress(counts: Sequence[int]) -> str:
    """Returns run lengths as COCO's string."""
    characters = []
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            bits = value & (_MORE - 1)
            value >>= _BITS
            more = value != (-1 if bits & _SIGN else 0)
            characters.append(chr(_OFFSET + bits + (_MORE if more else 0)))
    return "".join(characters)


def decompress(text: str) -> list[int]:
    """Returns the run lengths of COCO's string.

    Raises:
        ValueError: a character that cannot be in it, or an end within a number.
    """
    counts: list[int] = []
    value, shift = 0, 0
    for position, character in enumerate(text):
        bits = ord(character) - _OFFSET
        if not 0 <= bits < 2 * _MORE:
            raise ValueError(f"{character!r} at {position} is no character of run lengths")
        value |= (bits & (_MORE - 1)) << shift
        shift += _BITS
        if bits & _MORE:
            continue
        if bits & _SIGN:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value, shift = 0, 0
    if shift:
        raise ValueError("run lengths end within a number")
    return counts
