"""Label images of the truth, in all of their encodings."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from mobile_sam_ros.conversions import BadMessage
from mobile_sam_ros.demo.boxes import labels_from_image


def label_message(encoding: str, labels: NDArray[np.generic], padding: int = 0) -> SimpleNamespace:
    """Labels in the order of their bytes, with a padding of each row in pixels."""
    rows = np.pad(labels, ((0, 0), (0, padding)))
    return SimpleNamespace(
        height=labels.shape[0],
        width=labels.shape[1],
        encoding=encoding,
        step=rows.shape[1] * rows.itemsize,
        is_bigendian=int(labels.dtype.byteorder == ">"),
        data=rows.tobytes(),
    )


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("encoding", "kind", "most"),
    [
        ("mono8", "u1", 255),
        ("8UC1", "u1", 255),
        ("mono16", "u2", 65535),
        ("16UC1", "u2", 65535),
        ("32SC1", "i4", 65535),
    ],
)
def test_labels_of_an_image_with_padded_rows(
    encoding: str, kind: str, most: int, order: str
) -> None:
    labels = np.array([[0, 1, 200], [2, 0, most]], f"{order}{kind}")
    result = labels_from_image(label_message(encoding, labels, padding=2))
    assert result.dtype == np.uint16
    np.testing.assert_array_equal(result, labels)


def test_what_is_no_label_image() -> None:
    labels = np.ones((2, 3), np.uint16)
    with pytest.raises(BadMessage, match="has encoding 'bgr8', not one of mono8, 8UC1, mono16"):
        labels_from_image(label_message("bgr8", labels))
    for field, value in (("height", 3), ("height", 0), ("width", 4), ("width", 0), ("step", 5)):
        message = label_message("mono16", labels)
        setattr(message, field, value)
        with pytest.raises(BadMessage, match="encoding mono16 has size .* and 12 bytes of data"):
            labels_from_image(message)
    for label in (-1, 65536):
        with pytest.raises(BadMessage, match=f"encoding 32SC1 has label {label}"):
            labels_from_image(label_message("32SC1", np.full((2, 3), label, np.int32)))
