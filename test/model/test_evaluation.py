"""Comparing weights with others: where the points lie, and what is drawn and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from small_model import SMALL

from mobile_sam.modeling import Sam
from mobile_sam.predictor import Predictor
from mobile_sam.training import evaluate
from mobile_sam.training.examples import Example, SceneExamples


def predictor(seed: int, kind: type[Predictor] = Predictor) -> Predictor:
    torch.manual_seed(seed)
    return kind(Sam(SMALL).eval().requires_grad_(False))


class Listening(Predictor):
    """Keeps the points that it is given."""

    def decode(self, embedding, prompts, multimask=None):  # type: ignore[no-untyped-def]
        self.heard = [p.points.astype(int) for p in prompts if p.points is not None]
        return super().decode(embedding, prompts, multimask)


@pytest.mark.parametrize("shape", ["all but a strip", "ring"])
def test_the_point_beside_an_object_is_not_on_it(shape: str) -> None:
    canvas = np.zeros((300, 320), np.uint8)
    if shape == "ring":
        cv2.circle(canvas, (160, 150), 110, (1,), 60)
    else:
        canvas[:, 60:] = 1
    mask = canvas > 0
    example = Example("one", np.zeros((300, 320, 3), np.uint8), (mask,))
    heard, measured = [], []
    for seed in (0, 1, 2, 0):
        listening = predictor(0, Listening)
        measured.append(evaluate.compare(listening, predictor(1), [example], seed).iou)
        heard.append(listening.heard)  # type: ignore[attr-defined]
    for (x0, y0), (x1, y1) in (pair for each in heard for pair in each):
        assert mask[y0, x0] and not mask[y1, x1]
    # Nothing but the object is 100 pixels away from the middle of the first shape.
    assert all(("points 100 px apart" in iou) == (shape == "ring") for iou in measured)
    assert any("points 200 px apart" in iou for iou in measured)
    assert not any("points 500 px apart" in iou for iou in measured)
    np.testing.assert_array_equal(heard[0], heard[3])


def test_pictures_of_a_comparison_show_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes = SceneExamples((3,), (64, 64))
    one, other = predictor(0), predictor(1)
    result = evaluate.compare(one, other, [scenes.get(number) for number in range(2)])
    texts: list[str] = []
    drawn: list[np.ndarray] = []

    def note(image: np.ndarray, text: str, *arguments: Any) -> np.ndarray:
        texts.append(text)
        drawn.append(image.copy())
        return image

    monkeypatch.setattr(cv2, "putText", note)
    evaluate.pictures(one, scenes.get, result, tmp_path / "pictures.png", other, each=2)
    iou = np.sort(result.iou["box"])
    middle = len(iou) // 2
    wanted = [*iou[:2], *iou[middle - 1 :][:2], *iou[::-1][:2]]
    assert texts == [f"{value:.2f}" for value in wanted]
    assert cv2.imread(str(tmp_path / "pictures.png")) is not None
    with pytest.raises(OSError, match="none/pictures.png: cannot be written"):
        evaluate.pictures(one, scenes.get, result, tmp_path / "none/pictures.png", other)


def test_numbers_that_are_missing_are_null(tmp_path: Path) -> None:
    result = evaluate.Result(
        {"box": np.array([0.5, 0.25]), "points 100 px apart": np.array([np.nan, 0.75])},
        np.array([30, 40]),
        [(0, 0), (0, 1)],
    )
    examples = SceneExamples((3,), (64, 64))
    evaluate._write(tmp_path, predictor(0), examples.get, result, predictor(1))

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is not JSON")

    content = json.loads((tmp_path / "iou.json").read_text(), parse_constant=refuse)
    assert content["iou"] == {"box": [0.5, 0.25], "points 100 px apart": [None, 0.75]}
