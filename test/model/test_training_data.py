"""Data of one's own: what is missing, turned or damaged, and how that reaches the user."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from small_model import SMALL

from mobile_sam.predictor import Predictor
from mobile_sam.training import evaluate, finetune
from mobile_sam.training.batches import Batches, load
from mobile_sam.training.examples import (
    CocoExamples,
    Example,
    Examples,
    ExamplesError,
    LabelExamples,
    SceneExamples,
)
from mobile_sam.training.samples import PromptSamples, collate

SQUARE = [[4, 4, 14, 4, 14, 14, 4, 14]]


def coco(folder: Path, images: list[dict]) -> Path:
    """Writes a COCO file in which each image has a small square."""
    annotations = [
        {"id": i, "image_id": image["id"], "category_id": 1, "segmentation": SQUARE}
        for i, image in enumerate(images)
    ]
    path = folder / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


def pictures(folder: Path, count: int) -> list[dict]:
    """Writes pictures of 24x16 and returns their entries in a COCO file."""
    for i in range(count):
        cv2.imwrite(str(folder / f"{i}.png"), np.full((16, 24, 3), 9 * i, np.uint8))
    return [{"id": i, "file_name": f"{i}.png", "width": 24, "height": 16} for i in range(count)]


def test_missing_images_are_known_at_the_start(tmp_path: Path) -> None:
    path = coco(tmp_path, pictures(tmp_path, 4))
    (tmp_path / "1.png").unlink()
    (tmp_path / "3.png").unlink()
    message = f"{tmp_path}/1.png: no such file; {path} has objects in 4 images, of which 2 are"
    with pytest.raises(ExamplesError, match=message):
        CocoExamples(path, tmp_path)
    content = json.loads(path.read_text())  # without objects they are not needed
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] % 2 == 0]
    path.write_text(json.dumps(content))
    assert CocoExamples(path, tmp_path).count == 2
    content["images"][0]["file_name"] = 7
    path.write_text(json.dumps(content))
    with pytest.raises(ExamplesError, match="instances.json: not in COCO's form: TypeError"):
        CocoExamples(path, tmp_path)


def test_a_turned_photograph_is_read_as_it_was_annotated(tmp_path: Path) -> None:
    image = np.zeros((16, 24, 3), np.uint8)
    image[:, :12] = 255  # the left half, as it is stored
    _, encoded = cv2.imencode(".jpg", image)
    # EXIF in one entry: orientation (0x112), a SHORT (3), one of them, 6: turned by a quarter.
    tiff = b"II*\0\x08\0\0\0" + b"\x01\0" + b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0" + b"\0\0\0\0"
    exif = b"Exif\0\0" + tiff
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    data = encoded.tobytes()
    (tmp_path / "photograph.jpg").write_bytes(data[:2] + segment + data[2:])
    entry = {"id": 0, "file_name": "photograph.jpg"}

    def get(**size: int) -> np.ndarray:
        return CocoExamples(coco(tmp_path, [{**entry, **size}]), tmp_path).get(0).image

    stored, turned = get(width=24, height=16), get(width=16, height=24)
    assert stored.shape == (16, 24, 3) and turned.shape == (24, 16, 3)
    assert stored[:, :10].min() > 200 > 50 > stored[:, 14:].max()
    assert turned[:10].min() > 200 > 50 > turned[14:].max()
    np.testing.assert_array_equal(get(), turned)  # nothing said: as it is looked at
    with pytest.raises(ExamplesError, match="photograph.jpg: is 16x24 pixels, not 24x24 as .*json"):
        get(width=24, height=24)


def test_bad_data_in_another_process_are_said_as_in_this_one(tmp_path: Path) -> None:
    examples = CocoExamples(coco(tmp_path, pictures(tmp_path, 4)), tmp_path)
    (tmp_path / "2.png").write_bytes(b"no picture")
    samples = PromptSamples([examples], SMALL, prompts=2, seed=3)
    said, before = [], []
    for workers in (0, 1):
        stream = load(samples, Batches(1), workers, collate, expected=(ExamplesError, OSError))
        got = []
        with pytest.raises(ExamplesError) as caught:
            for batch in stream:
                got.append(batch.pixels)
        said.append(str(caught.value))
        before.append(got)
    assert said == [f"{tmp_path}/2.png: not an image that can be read"] * 2
    for one, other in zip(*before, strict=True):
        assert torch.equal(one, other)


# --- The command ----------------------------------------------------------------------------


def test_affinities_are_learnt_where_all_pixels_are_labelled(tmp_path: Path) -> None:
    scenes: Examples = SceneExamples((1,), (64, 64))
    files: Examples = CocoExamples(coco(tmp_path, pictures(tmp_path, 1)), tmp_path)

    def weight(
        sources: list[Examples], train: str = "both", affinity: float | None = None
    ) -> float:
        options = argparse.Namespace(train=train, affinity=affinity)
        return finetune._affinity_weight(options, sources)

    assert weight([scenes, scenes]) == 0.5 and weight([scenes, files]) == 0
    assert weight([files], affinity=0.25) == 0.25 and weight([scenes], affinity=0.0) == 0
    assert weight([scenes], "decoder", 0.5) == 0


def test_a_run_goes_on_only_with_the_same_data_and_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = dataclasses.replace(SMALL, encoder_dims=(8, 16, 16, 16), encoder_heads=(1, 1, 1, 1))
    (tmp_path / "small.json").write_text(config.to_json())
    data = f"coco:{coco(tmp_path, pictures(tmp_path, 2))}:{tmp_path}"

    def go_on(steps: int = 1, **changes: object) -> int:
        options = {"pictures": 1, "prompts": 2, "workers": 0, "device": "cpu", **changes}
        given = [f"--{name}={value}" for name, value in options.items()]
        command = [data, str(tmp_path / "run"), "--config", str(tmp_path / "small.json")]
        return finetune.main([*command, f"--steps={steps}", *given])

    assert go_on() == 0
    for changes, message in (
        ({"prompts": 3}, "with prompts 2, not 3"),
        ({"train": "encoder"}, "with trained ['image_encoder', 'prompt_encoder', "),
        ({"image-size": 96}, "with image_size 64, not 96"),
    ):
        assert go_on(**changes) == 1
        said = capsys.readouterr().err.splitlines()[-1]
        assert f"state.pt: is of a run {message}" in said and "choose another directory" in said
    coco(tmp_path, pictures(tmp_path, 3))
    assert go_on() == 1
    assert "with examples [2], not [3]" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        go_on(prompts=0)
    assert "argument --prompts: 0 is less than 1" in capsys.readouterr().err


def test_all_of_finite_data_is_measured_and_some_of_scenes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def count(predictor: Predictor, examples: Iterable[Example]) -> evaluate.Result:
        origins = [(number, 0) for number, _ in enumerate(examples)]
        ones = np.ones(len(origins))
        return evaluate.Result({"box": ones}, ones.astype(np.int64), origins)

    monkeypatch.setattr(evaluate, "evaluate", count)
    monkeypatch.setattr(evaluate, "_SCENES", 2)
    images = pictures(tmp_path, 3)
    (tmp_path / "labels").mkdir()
    for image in images:
        label = np.zeros((16, 24), np.uint8)
        label[4:12, 4:12] = 1
        cv2.imwrite(str(tmp_path / "labels" / image["file_name"]), label)
    assert LabelExamples(tmp_path, tmp_path / "labels").count == 3
    for data, options, wanted in (
        (f"labels:{tmp_path}:{tmp_path}/labels", [], 3),
        (f"labels:{tmp_path}:{tmp_path}/labels", ["--scenes", "1"], 1),
        ("scenes", ["--side", "64"], 2),
    ):
        assert evaluate.main(["--data", data, "--device", "cpu", *options]) == 0
        assert f"on {wanted} pictures of {data}, by size" in capsys.readouterr().out
