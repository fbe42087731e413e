"""Where the demo's images and boxes come from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mobile_sam.pictures import PictureError, natural_order
from mobile_sam_ros.demo.boxes import MotionDetector, label_boxes, labels_from_image, merged
from mobile_sam_ros.demo.sources import MAX_SIDE, file_shots, procedural_shots

SIDE = 40


def square_video(frames: int) -> list[NDArray[np.uint8]]:
    """A bright square that moves 4 pixels a frame over noise at rest, from x = 20, y = 60."""
    background = np.random.default_rng(0).integers(90, 110, (180, 320, 3), np.uint8)
    images = []
    for index in range(frames):
        image = background.copy()
        x = 20 + 4 * index
        image[60 : 60 + SIDE, x : x + SIDE] = (250, 40, 40)
        images.append(image)
    return images


# --- Boxes ----------------------------------------------------------------------------------


def test_a_moving_square_is_found_once_and_where_it_is() -> None:
    detector = MotionDetector(min_area=100, warm_up=5)
    found = 0
    for index, image in enumerate(square_video(40)):
        boxes, scores = detector.find(image)
        if index < 5:
            assert len(boxes) == 0
        # At first the place that the square has left looks as if something moved there.
        if index < 20:
            continue
        assert boxes.shape[1:] == (4,) and boxes.dtype == np.float32 and len(scores) == len(boxes)
        square = np.array([20 + 4 * index, 60, 20 + 4 * index + SIDE, 60 + SIDE])
        found += any(np.abs(box - square).max() <= 6 for box in boxes)
        assert ((scores > 0) & (scores <= 1)).all()
    assert found >= 19  # of 20


def test_nothing_moves_in_a_still_image() -> None:
    detector = MotionDetector(warm_up=2)
    image = square_video(1)[0]
    assert [len(detector.find(image)[0]) for _ in range(10)] == [0] * 10


def test_another_size_is_another_camera() -> None:
    detector = MotionDetector(warm_up=2)
    for image in square_video(5):
        detector.find(image)
    assert len(detector.find(np.zeros((50, 60, 3), np.uint8))[0]) == 0


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([], []),
        ([[0, 0, 2, 2]], [[0, 0, 2, 2]]),
        ([[0, 0, 2, 2], [1, 1, 5, 5]], [[0, 0, 5, 5]]),
        ([[0, 0, 2, 2], [4, 0, 6, 2]], [[0, 0, 6, 2]]),  # a gap of 2 is less than 3
        ([[0, 0, 2, 2], [5, 0, 7, 2]], [[0, 0, 2, 2], [5, 0, 7, 2]]),
        # The first two, as one, reach the third.
        ([[0, 0, 2, 9], [0, 8, 9, 9], [7, 0, 9, 2]], [[0, 0, 9, 9]]),
    ],
)
def test_boxes_near_each_other_are_one(boxes: list, expected: list) -> None:
    result = merged(np.array(boxes, np.float32).reshape(-1, 4), 3)
    assert sorted(result.tolist()) == expected


def test_boxes_of_labels() -> None:
    labels = np.zeros((6, 8), np.uint16)
    labels[1:3, 2:5] = 2
    labels[5, 7] = 1
    labels[0, 0:4] = 4
    boxes = label_boxes(labels, min_area=2)
    assert {label: box.tolist() for label, box in boxes.items()} == {
        2: [2, 1, 5, 3],
        4: [0, 0, 4, 1],
    }
    assert label_boxes(np.zeros((3, 3), np.uint16), 0) == {}


@pytest.mark.parametrize("order", ["<", ">"])
def test_labels_of_an_image_with_padded_rows(order: str) -> None:
    labels = np.array([[0, 1, 300], [2, 0, 65535]], np.uint16)
    rows = np.pad(labels.astype(f"{order}u2"), ((0, 0), (0, 2)))
    message = SimpleNamespace(
        height=2,
        width=3,
        encoding="mono16",
        step=10,
        is_bigendian=int(order == ">"),
        data=rows.tobytes(),
    )
    result = labels_from_image(message)
    assert result.dtype == np.uint16
    np.testing.assert_array_equal(result, labels)


# --- Sources --------------------------------------------------------------------------------


def write_images(folder: Path, images: list[NDArray[np.uint8]]) -> None:
    """Writes RGB images as frame1.png, frame2.png and so on."""
    folder.mkdir(exist_ok=True)
    for index, image in enumerate(images, start=1):
        cv2.imwrite(str(folder / f"frame{index}.png"), image[..., ::-1])


def test_folder_in_the_order_of_numbers_without_what_is_no_image(tmp_path: Path) -> None:
    images = square_video(11)
    write_images(tmp_path, images)
    (tmp_path / "frame0.txt").write_text("not an image")
    (tmp_path / "frame3.png").write_bytes((tmp_path / "frame3.png").read_bytes()[:40])
    shots = [image for image, labels in file_shots(tmp_path) if labels is None]
    kept = [image for index, image in enumerate(images) if index != 2]
    assert len(shots) == 10
    for shot, image in zip(shots, kept, strict=True):
        np.testing.assert_array_equal(shot, image)


def test_video_file(tmp_path: Path) -> None:
    path = tmp_path / "square.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (320, 180))
    images = square_video(5)
    for image in images:
        writer.write(image[..., ::-1])
    writer.release()
    shots = [image for image, _ in file_shots(path)]
    assert len(shots) == 5
    assert np.abs(shots[3].astype(int) - images[3]).mean() < 5  # RGB again, but for JPEG


def test_large_images_are_scaled_down(tmp_path: Path) -> None:
    write_images(tmp_path, [np.zeros((1000, 2 * MAX_SIDE, 3), np.uint8)])
    assert next(file_shots(tmp_path))[0].shape == (500, MAX_SIDE, 3)


@pytest.mark.parametrize("kind", ["missing.avi", "text.avi", "empty.avi", "folder"])
def test_what_cannot_be_read_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "text.avi":
        path.write_text("no video")
    elif kind == "empty.avi":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(PictureError, match=str(path)):
        file_shots(path)


def test_procedural_scene_has_truth() -> None:
    shots = procedural_shots(1, (48, 64), 2)
    first, second = next(shots), next(shots)
    assert first[0].shape == (48, 64, 3) and first[1] is not None and first[1].shape == (48, 64)
    assert (first[0] != second[0]).any()


def test_numbers_are_ordered_as_numbers() -> None:
    names = ["b2", "a10", "a9", "a", "10", "a9b1"]
    assert sorted(names, key=natural_order) == ["10", "a", "a9", "a9b1", "a10", "b2"]
    names = ["m²", "m10", "²", "m２", "m1"]  # a superscript is no digit; a wide one is
    assert sorted(names, key=natural_order) == ["m1", "m２", "m10", "m²", "²"]
