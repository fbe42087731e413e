"""The ONNX export: the same results from ONNX Runtime, for any number of prompts and any size."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mobile_sam import cli
from mobile_sam.backends import load_backend
from mobile_sam.checkpoints import WeightsError, load_sam
from mobile_sam.export import DECODER_FILE, ENCODER_FILE, OPSET
from mobile_sam.predictor import Predictor
from mobile_sam.prompts import Prompt, batch_prompts
from mobile_sam.scenes import MovingScene
from mobile_sam.segments import Segments, tight_box

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

SCENE = MovingScene(5, (240, 320), 3).frame(0)
BOXES = [tight_box(SCENE.labels == i) for i in (1, 2, 3)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo weights as ONNX, as a user exports them."""
    directory = tmp_path_factory.mktemp("onnx")
    assert cli.main(["export", "demo", str(directory)]) == 0
    return directory


@pytest.fixture(scope="module")
def predictors(exported: Path) -> tuple[Predictor, Predictor]:
    """PyTorch, and ONNX Runtime through the same interface."""
    return Predictor(load_sam("demo")), Predictor.from_weights(exported)


def prompt_sets() -> list[list[Prompt]]:
    """One, two and nine objects, with all kinds of prompt."""
    x, y = BOXES[0][:2] + (BOXES[0][2:] - BOXES[0][:2]) / 2
    point, box = Prompt(points=[(x, y)]), Prompt(box=BOXES[1])
    mask = np.random.default_rng(0).normal(0, 4, (128, 128)).astype(np.float32)
    return [
        [point],
        [box, Prompt(box=BOXES[2], points=[(x, y), (3, 3)], labels=[0, 0])],
        [point, box, Prompt(mask_logits=mask), Prompt(box=BOXES[0], mask_logits=mask)] * 2 + [box],
    ]


def test_same_segments(predictors: tuple[Predictor, Predictor]) -> None:
    torch_embedding, onnx_embedding = (p.encode(SCENE.image) for p in predictors)
    torch.testing.assert_close(onnx_embedding.features, torch_embedding.features, atol=1e-4, rtol=0)
    for prompts in prompt_sets():
        wanted: Segments = predictors[0].decode(torch_embedding, prompts)
        found: Segments = predictors[1].decode(onnx_embedding, prompts)
        assert np.abs(found.logits - wanted.logits).max() < 2e-3
        assert np.abs(found.predicted_iou - wanted.predicted_iou).max() < 1e-4
        assert np.mean(found.masks != wanted.masks) < 1e-4
        assert found.masks.any((1, 2)).all()


def test_the_command_line_takes_an_export_for_weights(exported: Path, tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    cv2.imwrite(str(image), SCENE.image[..., ::-1])
    box = ",".join(str(value) for value in BOXES[2])
    for name, weights in (("torch", "demo"), ("onnx", str(exported))):
        output = ["--weights", weights, "--output", str(tmp_path / name), "--encode-padding"]
        assert cli.main(["segment", str(image), "--box", box, *output]) == 0
    one, other = (
        cv2.imread(str(tmp_path / name / "masks/image_1.png"), cv2.IMREAD_UNCHANGED) > 0
        for name in ("torch", "onnx")
    )
    assert np.mean(one != other) < 1e-3 and one.any()


def test_the_graph_makes_masks_of_any_size(
    exported: Path, predictors: tuple[Predictor, Predictor]
) -> None:
    """What a user does who has the files only: scales, pads, runs, and cuts at 0."""
    decoder = onnxruntime.InferenceSession(exported / DECODER_FILE)
    embedding = predictors[1].encode(SCENE.image)
    prompts = prompt_sets()[1]
    batch = batch_prompts(prompts, (256 / 320, 192 / 240), 128)
    wanted = predictors[0].decode(predictors[0].encode(SCENE.image), prompts).masks
    for factor in (1, 2):
        height, width = 240 * factor, 320 * factor
        (masks,) = decoder.run(
            ["masks"],
            {
                "embedding": embedding.features.numpy(),
                "points": batch.points.numpy(),
                "labels": batch.labels.numpy(),
                "mask_logits": np.zeros((2, 1, 128, 128), np.float32),
                "has_mask": np.zeros(2, bool),
                "rows": ((0.5 + np.arange(height)) * 192 / height - 0.5).astype(np.float32),
                "columns": ((0.5 + np.arange(width)) * 256 / width - 0.5).astype(np.float32),
            },
        )
        assert masks.shape == (2, height, width)
        found = masks[:, ::factor, ::factor] > 0
        assert ((found & wanted).sum((1, 2)) / (found | wanted).sum((1, 2)) > 0.95).all()


def test_files_say_what_they_are(exported: Path) -> None:
    for file in (ENCODER_FILE, DECODER_FILE):
        model = onnx.load(exported / file)
        onnx.checker.check_model(model)
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        assert metadata["weights"] == "demo" and metadata["image_size"] == "256"
        assert json.loads(metadata["config"])["embedding_dim"] == 128
        assert [entry.version for entry in model.opset_import if not entry.domain] == [OPSET]
    names = [value.name for value in model.graph.input]
    assert names == [
        "embedding", "points", "labels", "mask_logits", "has_mask", "rows", "columns"
    ]  # fmt: skip


def test_damaged_and_missing_files_are_named(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="encoder.onnx: no such file"):
        load_backend(tmp_path)
    shutil.copytree(exported, tmp_path / "cut")
    path = tmp_path / "cut" / DECODER_FILE
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(WeightsError, match="decoder.onnx: not a model"):
        load_backend(tmp_path / "cut")
    for refused, why in (
        ({"device": "cuda"}, "'cuda' cannot be used: ONNX Runtime has no CUDA"),
        ({"backend": "tensorrt"}, "ONNX Runtime has no Tensorrt"),
        ({"backend": "openvino"}, "'openvino' takes no ONNX export"),
        ({"precision": "bf16"}, "'bf16' cannot be used: an ONNX export runs in fp32"),
    ):
        with pytest.raises(ValueError, match=why):
            load_backend(exported, **refused)
