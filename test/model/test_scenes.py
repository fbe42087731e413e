"""Drawn scenes: the same picture with every OpenCV that a distribution has."""

from __future__ import annotations

import numpy as np

from mobile_sam.scenes.painting import put_object


def test_an_object_hides_what_is_behind_it_in_all_colours() -> None:
    """Wholly, by half at its rim, and not at all beside it."""
    canvas = np.full((1, 3, 3), (200, 100, 50), np.uint8)
    labels = np.zeros((1, 3), np.uint16)
    mask = np.array([[255, 128, 0]], np.uint8)
    skin = np.full((1, 3, 3), (10, 20, 30), np.uint8)
    put_object(canvas, labels, (slice(0, 1), slice(0, 3)), mask, skin, 7)
    wanted = [[10, 20, 30], [105, 60, 40], [200, 100, 50]]
    np.testing.assert_allclose(canvas[0].astype(int), wanted, atol=1)
    assert labels.tolist() == [[7, 7, 0]]
