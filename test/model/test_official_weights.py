"""The weights that robots run, on a photograph: against upstream's own code, in each precision."""

from __future__ import annotations

import contextlib
import io
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from official import official_weights

from mobile_sam.checkpoints import load_sam
from mobile_sam.export import ENCODER_FILE, export_onnx
from mobile_sam.modeling.sam import normalised
from mobile_sam.predictor import Predictor
from mobile_sam.prompts import Prompt
from mobile_sam.training.evaluate import mask_iou

# Of the portrait of Grace Hopper that matplotlib ships, or of a part as wide as a camera's picture.
PROMPTS = {
    "cap": Prompt(points=[(250, 60)]),
    "face": Prompt(box=(160, 90, 350, 340)),
    "head": Prompt(box=(145, 15, 375, 345)),
    "uniform": Prompt(points=[(60, 375), (450, 375)], labels=[1, 1]),
}
AMBIGUOUS = {"cap", "face"}  # of which the best of three masks is taken
FACE, WALL = (215, 260), (80, 40)  # row, column


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    """The portrait, uint8 RGB (600, 512, 3)."""
    matplotlib = pytest.importorskip("matplotlib")
    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


@pytest.fixture(scope="module")
def upstream() -> types.SimpleNamespace:
    """Upstream's own predictor."""
    with contextlib.redirect_stdout(io.StringIO()):
        oracle = pytest.importorskip("mobilesam_lite.mobile_sam")
    model = oracle.sam_model_registry["vit_t"](checkpoint=str(official_weights())).eval()
    return types.SimpleNamespace(model=model, predictor=oracle.SamPredictor(model))


def masks_of_upstream(upstream: types.SimpleNamespace, image: np.ndarray) -> dict[str, np.ndarray]:
    """The mask with the greatest predicted IoU for each prompt, as upstream's notebooks take it."""
    upstream.predictor.set_image(image)
    found = {}
    for name, prompt in PROMPTS.items():
        masks, iou, _ = upstream.predictor.predict(
            point_coords=prompt.points,
            point_labels=prompt.labels,
            box=prompt.box,
            multimask_output=name in AMBIGUOUS,
        )
        found[name] = masks[int(iou.argmax())]
    return found


@pytest.mark.parametrize("crop", [slice(0, 600), slice(0, 384)], ids=["portrait", "4:3"])
def test_the_masks_are_upstreams(
    crop: slice, upstream: types.SimpleNamespace, photograph: np.ndarray
) -> None:
    """With the padding to the pixel; without it, and in bf16, within a stated bound."""
    image = np.ascontiguousarray(photograph[crop])
    wanted = masks_of_upstream(upstream, image)
    assert wanted["face"][FACE] and not wanted["face"][WALL]
    for how, least in (
        ({"encode_padding": True}, 0.999),
        ({}, 0.97),
        ({"precision": "bf16"}, 0.95),
    ):
        predictor = Predictor.from_weights(official_weights(), backend="torch", **how)
        embedding = predictor.encode(image)
        for name, prompt in PROMPTS.items():
            mask = predictor.decode(embedding, [prompt], multimask=name in AMBIGUOUS).masks[0]
            assert mask_iou(mask, wanted[name]) > least, f"{name}, {how}"


def test_the_weights_in_the_package_see_what_the_official_ones_see(
    upstream: types.SimpleNamespace, photograph: np.ndarray
) -> None:
    wanted = masks_of_upstream(upstream, photograph)
    predictor = Predictor.from_weights(device="cpu")
    embedding = predictor.encode(photograph)
    for name in ("head", "uniform"):  # what has one meaning
        mask = predictor.decode(embedding, [PROMPTS[name]], multimask=False).masks[0]
        assert mask_iou(mask, wanted[name]) > 0.85, name


def test_an_export_has_no_square_that_half_precision_cannot_hold(
    photograph: np.ndarray, tmp_path: Path
) -> None:
    """Some of what the encoder norms is beyond 256, and 65504 is fp16's end."""
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    sam = load_sam(official_weights()).eval()
    export_onnx(sam, tmp_path, "official")
    model = onnx.load(tmp_path / ENCODER_FILE)
    normed = [n.input[0] for n in model.graph.node if n.op_type == "LayerNormalization"]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in normed)
    session = runtime.InferenceSession(model.SerializeToString())
    side = sam.config.image_size
    square = torch.from_numpy(cv2.resize(photograph, (side, side))).permute(2, 0, 1)
    pixels = normalised(square[None], (side, side))
    embedding, *inputs = session.run(None, {"pixels": pixels.numpy()})
    assert inputs
    largest = max(float(np.square(value).max()) for value in inputs)
    assert largest < 65504 / 16  # room for other pictures
    with torch.inference_mode():
        exact = sam.image_encoder(pixels).numpy()
    assert np.abs(embedding - exact).max() < 1e-4
