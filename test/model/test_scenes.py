"""Drawn scenes: the same picture with every OpenCV that a distribution has."""

from __future__ import annotations

import cv2
import numpy as np

from mobile_sam.scenes import draw_robot_scene, robot
from mobile_sam.scenes.camera import defocus
from mobile_sam.scenes.painting import put_object, shade
from mobile_sam.scenes.shapes import pose, rectangle
from mobile_sam.segments import tight_box


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


def test_robot_scenes_are_the_same_for_the_same_seed_and_label_what_is_seen() -> None:
    for seed in range(30):
        one, two = (draw_robot_scene(np.random.default_rng(seed), (96, 128)) for _ in range(2))
        assert (one.image == two.image).all() and (one.labels == two.labels).all()
        assert one.image.shape == (96, 128, 3) and one.labels.shape == (96, 128)
        areas = np.bincount(one.labels.ravel())
        assert (areas[1:] >= 9).all(), "labels are 1 to n without gaps, none of a few pixels"


def test_robot_scenes_range_from_one_thing_to_many_and_from_tiny_to_huge() -> None:
    counts, widths = [], []
    for seed in range(150):
        labels = draw_robot_scene(np.random.default_rng(seed), (128, 128)).labels
        counts.append(int(labels.max()))
        boxes = [tight_box(labels == label) for label in range(1, counts[-1] + 1)]
        widths += [max(box[2:] - box[:2]) for box in boxes]
    assert min(counts) <= 1 and max(counts) >= 20
    assert min(widths) <= 5 and max(widths) >= 120


def test_robot_scenes_wear_the_photographs_they_are_given() -> None:
    """Of one with a blue that no drawn texture has in such numbers."""
    blue = np.full((40, 60, 3), (0, 0, 255), np.uint8)
    blue[::4] = 0
    with_photographs, without = [], []
    for seed in range(20):
        for photographs, found in (((blue,), with_photographs), ((), without)):
            image = draw_robot_scene(np.random.default_rng(seed), (64, 64), photographs).image
            strongest = np.sort(image.astype(int), axis=2)
            found.append(np.mean(strongest[..., 2] - strongest[..., 1] > 120))
    assert np.mean(with_photographs) > 0.1 > 2 * np.mean(without)


def test_a_shadow_falls_away_from_the_light() -> None:
    """The only thing on a bright floor: what gets darker lies on the other side of it."""
    canvas = np.full((100, 100, 3), 200, np.uint8)
    square = ((rectangle(1, 1),),)
    for light_x, darker, lighter in ((-0.8, slice(62, 70), slice(20, 36)),
                                     (0.8, slice(30, 38), slice(64, 80))):  # fmt: skip
        lit = canvas.copy()
        setting = robot._Setting(0.0, 10, (light_x, -0.6), 0.6)
        thing = robot._Thing(square, pose((50, 60), 10, 0), 10, 70)
        robot._cast(setting, lit, thing)
        assert lit[72:74, darker].mean() < 150 and (lit[72:74, lighter] == 200).all()
        assert (lit[:66] == 200).all(), "the light is behind it: the shadow comes towards us"


def test_what_is_round_is_bright_where_the_light_comes_from() -> None:
    mask = cv2.circle(np.zeros((60, 60), np.uint8), (30, 30), 25, (255,), -1)
    grey = np.full((60, 60, 3), 100, np.uint8)
    shaded = shade(grey, mask.astype(np.uint8), (0.0, -1.0), 0.5, 0.0)
    assert shaded[10, 30].mean() > 110 and shaded[50, 30].mean() < 90


def test_out_of_focus_a_point_is_a_disc() -> None:
    image = np.zeros((41, 41, 3), np.uint8)
    image[20, 20] = 255
    rows, columns = np.nonzero(defocus(image, 3.0)[..., 0])
    distance = np.hypot(rows - 20, columns - 20)
    assert 2.9 < distance.max() <= 3.5
    assert abs(len(rows) - np.pi * 3.0**2) < 10
    assert (defocus(np.full((9, 9, 3), 77, np.uint8), 2.5) == 77).all()
