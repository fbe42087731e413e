"""Run lengths against pycocotools."""

from __future__ import annotations

import numpy as np
import pytest

from mobile_sam.run_lengths import compress, counts_from_mask, decompress, mask_from_counts

coco = pytest.importorskip("pycocotools.mask")


def masks() -> list[np.ndarray]:
    """Empty, full, one pixel, noise, stripes and large blobs."""
    rng = np.random.default_rng(0)
    blob = np.zeros((480, 640), bool)
    blob[100:400, 50:600] = True
    blob[200:300, 200:300] = False
    corner = np.zeros((7, 5), bool)
    corner[0, 0] = True
    return [
        np.zeros((4, 6), bool),
        np.ones((4, 6), bool),
        corner,
        corner[::-1, ::-1],
        rng.random((37, 53)) < 0.5,
        rng.random((200, 300)) < 0.01,
        np.indices((30, 40)).sum(0) % 7 < 3,
        blob,
    ]


@pytest.mark.parametrize("mask", masks(), ids=lambda mask: "x".join(map(str, mask.shape)))
def test_same_as_coco_and_back(mask: np.ndarray) -> None:
    counts = counts_from_mask(mask)
    text = compress(counts)
    wanted = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert text == wanted["counts"].decode()
    assert decompress(text) == counts
    np.testing.assert_array_equal(mask_from_counts(counts, mask.shape), mask)
    assert sum(counts[1::2]) == coco.area(wanted)


def test_what_is_no_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="sum of 5 .* 2 x 3"):
        mask_from_counts([1, 4], (2, 3))
    with pytest.raises(ValueError, match="least of -1"):
        mask_from_counts([-1, 7], (2, 3))
    with pytest.raises(ValueError, match="'~' at 1"):
        decompress("0~")
    with pytest.raises(ValueError, match="within a number"):
        decompress(chr(48 + 32))
