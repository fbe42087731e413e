"""Scenes, samples and losses of the training, and a very short one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from mobile_sam.checkpoints import load_sam
from mobile_sam.modeling import DEMO, PointLabel
from mobile_sam.scenes import MovingScene, draw_scene
from mobile_sam.segments import tight_box
from mobile_sam.training.affinity import affinity_loss
from mobile_sam.training.losses import mask_loss, measured_iou, sam_loss
from mobile_sam.training.samples import SceneSamples, inner_point
from mobile_sam.training.train import learning_rate, main


@pytest.mark.parametrize("seed", range(4))
def test_same_seed_same_scene_and_labels_without_gaps(seed: int) -> None:
    one, two = (draw_scene(np.random.default_rng(seed), (96, 128)) for _ in range(2))
    np.testing.assert_array_equal(one.image, two.image)
    found = np.unique(one.labels)
    np.testing.assert_array_equal(found[found > 0], np.arange(1, one.labels.max() + 1))


def test_objects_move_and_frames_can_be_asked_for_in_any_order() -> None:
    scene = MovingScene(3, (120, 160), 3)
    late = scene.frame(30)
    assert (scene.frame(0).labels != late.labels).any()
    np.testing.assert_array_equal(MovingScene(3, (120, 160), 3).frame(30).image, late.image)


def test_boxes_are_tight_and_points_inside() -> None:
    mask = np.zeros((20, 30), bool)
    mask[5:9, 7:20] = True
    assert tight_box(mask).tolist() == [7, 5, 20, 9]
    x, y = inner_point(mask).astype(int)
    assert mask[y - 1 : y + 2, x - 1 : x + 2].all()


def test_samples_show_the_object_that_is_wanted() -> None:
    config = dataclasses.replace(DEMO, image_size=128)
    batch = next(iter(SceneSamples(config, (1,), scenes=3, prompts=4)))
    again = next(iter(SceneSamples(config, (1,), scenes=3, prompts=4)))
    assert torch.equal(batch.pixels, again.pixels) and torch.equal(batch.points, again.points)
    cell = config.image_size / config.mask_size
    for points, labels, target in zip(batch.points, batch.labels, batch.targets, strict=True):
        for x, y in points[labels == PointLabel.FOREGROUND] / cell:
            assert target[int(y), int(x)] > 0


def test_mask_loss_is_small_only_for_the_right_mask() -> None:
    target = torch.zeros(1, 16, 16)
    target[:, 4:12, 4:12] = 1
    right = (target * 2 - 1)[:, None] * 20
    losses = mask_loss(torch.cat([right, -right, right.roll(4, 3)], dim=1), target)[0]
    assert losses[0] < 0.02 < losses[2] < losses[1]


def test_iou_by_hand() -> None:
    target = torch.zeros(1, 4, 4)
    target[:, :2] = 1
    logits = torch.full((1, 2, 4, 4), -1.0)
    logits[:, 0, 1:3] = 1
    assert measured_iou(logits, target).tolist() == [[pytest.approx(1 / 3), 0]]


def test_only_the_best_of_three_learns_from_an_ambiguous_prompt() -> None:
    target = torch.zeros(1, 8, 8)
    target[:, 2:6, 2:6] = 1
    good = (target * 2 - 1)[:, None]
    logits = torch.cat([good, -good, good, -good], dim=1).requires_grad_()
    loss, _ = sam_loss(logits, torch.zeros(1, 4), target, torch.tensor([True]))
    loss.backward()
    assert logits.grad is not None
    moved = logits.grad.abs().sum((0, 2, 3)) > 0
    assert moved.tolist() == [True, False, True, False]


def test_affinities_tell_objects_apart() -> None:
    labels = torch.zeros(1, 32, 32, dtype=torch.int32)
    labels[:, 8:24, 8:24] = 1
    same = [
        torch.nn.functional.pad(pair.float(), padding)
        for distance in (1, 3, 8)
        for pair, padding in (
            (labels[:, :, distance:] == labels[:, :, :-distance], (0, distance)),
            (labels[:, distance:] == labels[:, :-distance], (0, 0, 0, distance)),
        )
    ]
    logits = (torch.stack(same, dim=1) * 2 - 1) * 20
    assert affinity_loss(logits, labels) < 1e-6 < 10 < affinity_loss(-logits, labels)


def test_learning_rate_rises_then_falls_to_nothing() -> None:
    assert learning_rate(0, 0, 1) < 0.01
    assert learning_rate(1000, 0.5, 1) == pytest.approx(0.5)
    assert learning_rate(1000, 1, 1) == pytest.approx(0, abs=1e-9)


@pytest.mark.slow
def test_training_runs_and_goes_on(tmp_path: Path) -> None:
    output = tmp_path / "trained.safetensors"
    common = ["--output", str(output), "--scenes", "1", "--prompts", "2", "--device", "cpu"]
    assert main([*common, "--small-minutes", "0.02", "--minutes", "0"]) == 0
    before = torch.load(output.with_suffix(".state.pt"), weights_only=True)
    more = str(before["minutes"] + 0.02)
    assert main([*common, "--small-minutes", more, "--minutes", "0"]) == 0
    after = torch.load(output.with_suffix(".state.pt"), weights_only=True)
    assert after["step"] > before["step"] > 0
    assert load_sam(output).config == DEMO
