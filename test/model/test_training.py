"""Training on masks: scenes, samples, losses, clicks, short runs, and what measures them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from mobile_sam.checkpoints import load_sam, save_safetensors
from mobile_sam.modeling import DEMO, PointLabel, Sam
from mobile_sam.predictor import Predictor
from mobile_sam.prompts import Prompt
from mobile_sam.scenes import MovingScene, draw_scene
from mobile_sam.segments import inner_points, tight_box
from mobile_sam.training import evaluate, finetune
from mobile_sam.training.affinity import affinity_loss
from mobile_sam.training.clicks import central_click, random_clicks
from mobile_sam.training.evaluate import mask_iou
from mobile_sam.training.examples import (
    Examples,
    ExamplesError,
    LabelExamples,
    SceneExamples,
    open_examples,
)
from mobile_sam.training.loop import LoopSettings, learning_rate
from mobile_sam.training.losses import mask_loss, measured_iou, sam_loss
from mobile_sam.training.samples import PromptSamples, Samples, collate


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
    x, y = inner_points(mask, 1)[0].astype(int)
    assert mask[y - 1 : y + 2, x - 1 : x + 2].all()


@pytest.mark.parametrize("count", [None, 2])
def test_samples_show_the_object_that_is_wanted(count: int | None, tmp_path: Path) -> None:
    config = dataclasses.replace(DEMO, image_size=128)
    examples: Examples = SceneExamples((1,), (128, 128))
    if count is not None:
        examples = write_labels(tmp_path, (90, 128), count)
    samples = PromptSamples([examples], config, prompts=4, seed=7)
    batch = collate([samples[position] for position in range(3)])
    again = collate([samples[position] for position in range(3)])
    assert torch.equal(batch.pixels, again.pixels) and torch.equal(batch.points, again.points)
    assert not torch.equal(batch.points, collate([samples[i] for i in range(3, 6)]).points)
    cell = config.image_size / config.mask_size
    seen = 0
    for points, labels, target in zip(batch.points, batch.labels, batch.targets, strict=True):
        for x, y in points[labels == PointLabel.FOREGROUND] / cell:
            assert target[int(y), int(x)] > 0
            seen += 1
    assert seen > 2


def test_samples_are_of_all_sources_in_turn(tmp_path: Path) -> None:
    config = dataclasses.replace(DEMO, image_size=128)
    scenes, files = SceneExamples((1,), (128, 128)), write_labels(tmp_path, (128, 128), 2)
    both = PromptSamples([scenes, files], config, prompts=1, seed=7)
    for number in range(2):
        np.testing.assert_array_equal(
            both[2 * number][0].transpose(1, 2, 0), scenes.get(number).image
        )
    # In an order of their own, and some mirrored.
    sums = {int(both[2 * number + 1][0].sum()) for number in range(2)}
    assert sums == {int(files.get(number).image.sum()) for number in range(2)}


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
    settings = LoopSettings(steps=1000, rate=1, warmup=100)
    rates = [learning_rate(step, settings) for step in range(1000)]
    assert rates[0] < 0.02 and rates[-1] < 1e-5
    assert rates[500] == pytest.approx(0.5, abs=0.01)
    assert np.diff(rates[:90]).min() > 0 > np.diff(rates[100:]).max()


# --- Data of one's own ----------------------------------------------------------------------


def write_labels(folder: Path, size_hw: tuple[int, int], count: int) -> LabelExamples:
    """Writes drawn scenes as images and label images."""
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for i in range(count):
        scene = draw_scene(np.random.default_rng(i), size_hw)
        cv2.imwrite(str(folder / f"images/{i}.png"), scene.image[..., ::-1])
        cv2.imwrite(str(folder / f"labels/{i}.png"), scene.labels)
    return LabelExamples(folder / "images", folder / "labels")


def test_label_images_are_read_and_what_does_not_fit_is_named(tmp_path: Path) -> None:
    examples = write_labels(tmp_path, (60, 80), 2)
    scene = draw_scene(np.random.default_rng(1), (60, 80))
    example = examples.get(1)
    np.testing.assert_array_equal(example.image, scene.image)
    assert len(example.masks) == len(np.unique(scene.labels)) - 1
    np.testing.assert_array_equal(example.masks[0], scene.labels == 1)
    cv2.imwrite(str(tmp_path / "labels/1.png"), scene.labels[:30])
    with pytest.raises(ExamplesError, match=r"1.png: has shape \(30, 80\)"):
        examples.get(1)
    (tmp_path / "labels/1.png").unlink()
    with pytest.raises(ExamplesError, match="1.png: no such file, for"):
        open_examples(f"labels:{tmp_path}/images:{tmp_path}/labels", (0,), (9, 9))
    with pytest.raises(ExamplesError, match="'films' is none of scenes"):
        open_examples("films", (0,), (9, 9))


def test_robot_scenes_are_made_of_the_photographs_of_a_folder(tmp_path: Path) -> None:
    photograph = np.zeros((30, 900, 3), np.uint8)
    photograph[:, ::2] = (20, 200, 30)
    for name in ("a.png", "sub/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), photograph)
    plain = open_examples("robot-scenes", (3,), (64, 64))
    examples = open_examples(f"robot-scenes:{tmp_path}", (3,), (64, 64))
    assert examples.count is None
    pairs = [(examples.get(i), plain.get(i)) for i in range(8)]
    assert any((one.image != other.image).any() for one, other in pairs)
    assert all(mask.any() for one, _ in pairs for mask in one.masks)
    again = open_examples(f"robot-scenes:{tmp_path}", (3,), (64, 64)).get(5)
    assert (again.image == pairs[5][0].image).all()
    (tmp_path / "sub/b.png").write_bytes(b"no picture")
    with pytest.raises(ExamplesError, match="b.png is not an image"):
        open_examples(f"robot-scenes:{tmp_path}", (0,), (9, 9))
    with pytest.raises(ExamplesError, match="nowhere: no such folder"):
        open_examples(f"robot-scenes:{tmp_path}/nowhere", (0,), (9, 9))


def coco_file(folder: Path) -> Path:
    """A COCO file with a polygon, a polygon of two parts, and both kinds of run lengths."""
    coco = pytest.importorskip("pycocotools.mask")
    blob = np.zeros((60, 80), np.uint8)
    blob[10:40, 20:50] = 1
    blob[20:30, 30:40] = 0
    encoded = coco.encode(np.asfortranarray(blob))
    flat = blob.ravel(order="F")
    runs = np.diff([0, *(np.flatnonzero(np.diff(flat)) + 1), flat.size]).tolist()
    segmentations = [
        [[5.0, 5.0, 60.5, 8.0, 40.0, 50.0, 12.25, 44.5]],
        [[2, 2, 20, 2, 20, 20, 2, 20], [50, 30, 70, 30, 70, 55, 50, 55]],
        {"size": [60, 80], "counts": encoded["counts"].decode()},
        {"size": [60, 80], "counts": runs},
    ]
    cv2.imwrite(str(folder / "a.png"), np.zeros((60, 80, 3), np.uint8))
    content = {
        "images": [{"id": 3, "file_name": "a.png", "height": 60, "width": 80}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [
            {"id": i, "image_id": 3, "category_id": 1, "segmentation": s, "iscrowd": 0}
            for i, s in enumerate(segmentations)
        ],
    }
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return path


def test_coco_masks_are_those_of_pycocotools(tmp_path: Path) -> None:
    path = coco_file(tmp_path)
    example = open_examples(f"coco:{path}:{tmp_path}", (0,), (9, 9)).get(0)
    oracle = pytest.importorskip("pycocotools.coco").COCO(path)
    wanted = [oracle.annToMask(a) > 0 for a in oracle.loadAnns(oracle.getAnnIds())]
    for i, (found, mask) in enumerate(zip(example.masks, wanted, strict=True)):
        # Polygons end between pixels, and the two draw outlines differently there.
        assert mask_iou(found, mask) > (0.96 if i < 2 else 0.9999)


def test_bad_coco_files_are_named(tmp_path: Path) -> None:
    path = coco_file(tmp_path)
    content = json.loads(path.read_text())
    content["annotations"][2]["segmentation"]["size"] = [60, 81]
    path.write_text(json.dumps(content))
    with pytest.raises(ExamplesError, match="annotation 2: bad segmentation: size 60x81"):
        open_examples(f"coco:{path}:{tmp_path}", (0,), (9, 9)).get(0)
    content["annotations"][0]["image_id"] = 8
    path.write_text(json.dumps(content))
    with pytest.raises(ExamplesError, match="instances.json: an annotation is of image 8"):
        open_examples(f"coco:{path}:{tmp_path}", (0,), (9, 9))
    path.write_text("{")
    with pytest.raises(ExamplesError, match="instances.json: not a JSON file"):
        open_examples(f"coco:{path}:{tmp_path}", (0,), (9, 9))


# --- Clicks ---------------------------------------------------------------------------------


def test_clicks_are_where_the_mask_is_wrong() -> None:
    target = torch.zeros(3, 16, 16)
    target[:, 4:12, 4:12] = 1
    logits = target * 2 - 1
    logits[0, 6, 7] = -1  # misses one cell
    logits[1, 1, 2] = 1  # has one too many
    points, labels = random_clicks(logits, target, 64, torch.Generator().manual_seed(0))
    assert points[0].tolist() == [[7 * 4 + 1.5, 6 * 4 + 1.5]] and labels[0].tolist() == [1]
    assert points[1].tolist() == [[2 * 4 + 1.5, 1 * 4 + 1.5]] and labels[1].tolist() == [0]
    x, y = (points[2, 0] / 4).int().tolist()
    assert target[2, y, x] == 1 and labels[2].tolist() == [1]


def test_a_central_click_is_in_the_middle_of_the_largest_error() -> None:
    wanted = np.zeros((40, 60), bool)
    wanted[5:26, 10:31] = True
    found = np.zeros_like(wanted)
    click = central_click(found, wanted)
    assert click is not None and click[0].tolist() == [20, 15] and click[1] == 1
    found = wanted.copy()
    found[30:39, 40:49] = True
    click = central_click(found, wanted)
    assert click is not None and click[0].tolist() == [44, 34] and click[1] == 0
    assert central_click(wanted, wanted) is None


# --- Fine-tuning ----------------------------------------------------------------------------

SMALL = dataclasses.replace(
    DEMO,
    image_size=64,
    encoder_dims=(8, 16, 16, 16),
    encoder_depths=(1, 1, 1, 1),
    encoder_heads=(1, 1, 1, 1),
    encoder_windows=(4, 4, 4, 4),
    embedding_dim=32,
    decoder_heads=2,
    decoder_mlp_dim=32,
    iou_head_dim=32,
)


def arguments_of(run: Path, tmp_path: Path, data: str = "scenes", **options: object) -> list[str]:
    (tmp_path / "small.json").write_text(SMALL.to_json())
    values = {
        "config": tmp_path / "small.json",
        "pictures": 2,
        "prompts": 3,
        "workers": 0,
        "device": "cpu",
        "steps": 6,
        "warmup": 2,
        "average": 0.5,
        **options,
    }
    given = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
    return [*data.split(), str(run), *given]


@pytest.mark.parametrize(
    ("optimizer", "data"), [("adamw", "scenes"), ("muon", "scenes robot-scenes")]
)
def test_finetuning_goes_on_to_the_bit(
    optimizer: str, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {
        "data": data, "clicks": 2, "optimizer": optimizer, "freeze_after": 0.5, "save_seconds": 0
    }  # fmt: skip
    assert finetune.main(arguments_of(tmp_path / "straight", tmp_path, **options)) == 0
    real, count = finetune.Prompted.forward, 0

    def interrupted(self: finetune.Prompted, batch: Samples) -> dict[str, torch.Tensor]:
        nonlocal count
        count += 1
        if count == 5:
            raise KeyboardInterrupt
        return real(self, batch)

    monkeypatch.setattr(finetune.Prompted, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        finetune.main(arguments_of(tmp_path / "broken", tmp_path, **options))
    assert finetune.main(arguments_of(tmp_path / "broken", tmp_path, **options)) == 0
    states = [
        load_sam(tmp_path / name / "weights.safetensors").state_dict()
        for name in ("straight", "broken")
    ]
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name
    shown = cv2.imread(str(tmp_path / "straight/shown.png"))
    assert shown.shape == (320, 6 * 320, 3) and shown.std() > 10


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_only_the_chosen_part_changes(part: str, tmp_path: Path) -> None:
    start = tmp_path / "start.safetensors"
    torch.manual_seed(1)
    save_safetensors(Sam(SMALL), start)
    run = tmp_path / "run"
    # With a process that makes the samples, as by default.
    arguments = arguments_of(run, tmp_path, start_from=start, train=part, average=0, workers=1)
    assert finetune.main(arguments) == 0
    before, after = (load_sam(p).state_dict() for p in (start, run / "weights.safetensors"))
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert "image_encoder" in changed if part == "encoder" else "mask_decoder" in changed
    assert not changed & ({"mask_decoder"} if part == "encoder" else {"image_encoder"})


def test_another_size_of_input_has_the_same_weights(tmp_path: Path) -> None:
    start = tmp_path / "start.safetensors"
    save_safetensors(Sam(SMALL), start)
    run = tmp_path / "run"
    options = {"start_from": start, "image_size": 96, "rate": 0, "freeze_after": 0}
    assert finetune.main(arguments_of(run, tmp_path, **options)) == 0
    before, after = load_sam(start), load_sam(run / "weights.safetensors")
    assert after.config == dataclasses.replace(SMALL, image_size=96)
    for name, tensor in before.state_dict().items():
        assert torch.equal(tensor, after.state_dict()[name]), name


def test_errors_of_the_user_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, message in (
        ({"start_from": "none"}, "no weights of the name 'none'"),
        ({"precision": "fp8"}, "precision 'fp8' is none of"),
        ({"optimizer": "sgd"}, "optimizer 'sgd' is neither"),
        ({"image_size": 100}, "image_size 100 is no multiple of 8"),
    ):
        assert finetune.main(arguments_of(tmp_path / "run", tmp_path, **options)) == 1
        assert message in capsys.readouterr().err


# --- Evaluation -----------------------------------------------------------------------------


def test_evaluation_of_the_demo_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main(["--scenes", "3", "--output", str(tmp_path), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "table.md").read_text().strip() in printed
    content = json.loads((tmp_path / "iou.json").read_text())
    means = {name: np.mean(values) for name, values in content["iou"].items()}
    assert set(means) == {
        "box", "jittered box", "box and point", "mask", "one point, best of three",
        "one point, by predicted IoU", "1 click", "3 clicks", "5 clicks",
        "no model: the blurred mask",
    }  # fmt: skip
    assert 0.9 < means["no model: the blurred mask"] < 1  # half the image's size
    assert 0.6 < means["box"] <= 1 and means["one point, best of three"] > 0.5
    assert len(content["areas"]) == len(content["iou"]["box"]) == len(content["origins"])
    assert cv2.imread(str(tmp_path / "pictures.png")).shape == (3 * 256, 4 * 256, 3)
    assert cv2.imread(str(tmp_path / "plot.png")).std() > 10


def test_a_perfect_model_scores_one_and_a_blind_one_nothing() -> None:
    example = SceneExamples((3,), (128, 128)).get(0)

    class Oracle(Predictor):
        """Answers with the object whose box or first point it is given."""

        def decode(self, embedding, prompts, multimask=None):  # type: ignore[no-untyped-def]
            return self._answer(prompts)

        def candidates(self, embedding, prompt):  # type: ignore[no-untyped-def]
            return self._answer([prompt, prompt, prompt])

        def _answer(self, prompts):  # type: ignore[no-untyped-def]
            chosen = [self._object(prompt) for prompt in prompts]
            return SimpleNamespace(
                masks=np.stack(chosen) if sees else np.zeros((len(chosen), 128, 128), bool),
                predicted_iou=np.ones(len(chosen)),
                logits=np.zeros((len(chosen), 128, 128), np.float32),
            )

        def _object(self, prompt: Prompt) -> np.ndarray:
            if prompt.mask_logits is not None and prompt.points is None:
                inside = cv2.resize(prompt.mask_logits, (128, 128)) > 0
                return max(example.masks, key=lambda m: float(mask_iou(m, inside)))
            if prompt.box is not None:
                near = [np.abs(tight_box(m) - prompt.box).sum() for m in example.masks]
                return example.masks[int(np.argmin(near))]
            assert prompt.points is not None
            x, y = prompt.points[0].astype(int)
            return next(m for m in example.masks if m[y, x])

    oracle = Oracle(Sam(DEMO).eval())
    for sees in (True, False):
        result = evaluate.evaluate(oracle, [example])
        blurred = result.iou.pop("no model: the blurred mask")
        assert (blurred == 1).all()  # the logits have the image's size
        for name, iou in result.iou.items():
            assert (iou == (1 if sees else 0)).all(), name


def test_comparison_with_oneself_is_perfect(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--scenes", "1", "--side", "300", "--against", "demo", "--device", "cpu"]
    assert evaluate.main(options) == 0
    printed = capsys.readouterr().out
    assert "| box | 1.000 |" in printed and "| points 100 px apart | 1.000 |" in printed
    assert "against demo" in printed
    assert evaluate.main(["--data", "coco:none.json:images"]) == 1
    assert "none.json: not a JSON file" in capsys.readouterr().err
