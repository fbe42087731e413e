"""The model against upstream's own code (mobilesam-lite, test only) on shared random weights."""

import contextlib
import io
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from mobile_sam.checkpoints import convert_official, load_sam
from mobile_sam.predictor import Predictor
from mobile_sam.prompts import Prompt, batch_prompts

SIZES = {"landscape": (480, 640), "portrait": (300, 200), "square": (256, 256)}
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def upstream() -> Iterator[types.SimpleNamespace]:
    """Upstream's model with random weights that give logits of a real model's size."""
    with contextlib.redirect_stdout(io.StringIO()):
        oracle = pytest.importorskip("mobilesam_lite.mobile_sam")
    torch.manual_seed(3)
    model = oracle.sam_model_registry["vit_t"]().train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # As built, norms are identities and biases zero: exchange of any two would pass.
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            if "attention_biases" in name:
                parameter.add_(torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.1)
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    model.eval()  # only now: upstream copies the attention biases when it leaves training
    yield types.SimpleNamespace(model=model, predictor=oracle.SamPredictor(model))


@pytest.fixture(scope="module")
def ours(upstream: types.SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """Our model, loaded from upstream's checkpoint file."""
    path = tmp_path_factory.mktemp("weights") / "random.pt"
    torch.save(upstream.model.state_dict(), path)
    return Predictor(load_sam(path))


def picture(size_hw: tuple[int, int]) -> np.ndarray:
    """Something with structure at all scales, uint8 RGB."""
    rng = np.random.default_rng(size_hw)
    rows, columns = np.mgrid[: size_hw[0], : size_hw[1]]
    waves = [np.sin(rows / s + columns / (s + 3)) for s in (5, 17, 41)]
    noise = rng.normal(0, 0.2, (*size_hw, 3))
    return (np.clip(np.stack(waves, axis=-1) + noise, -1, 1) * 127 + 128).astype(np.uint8)


def prompts_of(size_hw: tuple[int, int], mask: np.ndarray) -> dict[str, Prompt]:
    """One prompt of each kind."""
    height, width = size_hw
    box = (width * 0.2, height * 0.3, width * 0.7, height * 0.9)
    points = [(width * 0.4, height * 0.5), (width * 0.6, height * 0.7), (3, 4)]
    return {
        "one point": Prompt(points=points[:1]),
        "points": Prompt(points=points, labels=[1, 1, 0]),
        "box": Prompt(box=box),
        "box and points": Prompt(box=box, points=points, labels=[1, 1, 0]),
        "point and mask": Prompt(points=points[:1], mask_logits=mask),
        "box and mask": Prompt(box=box, mask_logits=mask),
    }


@pytest.mark.parametrize("orientation", SIZES)
@torch.inference_mode()
def test_same_as_upstream(
    orientation: str, upstream: types.SimpleNamespace, ours: Predictor
) -> None:
    size_hw = SIZES[orientation]
    image = picture(size_hw)
    upstream.predictor.set_image(image)
    embedding = ours.encode(image)
    theirs = upstream.predictor.get_image_embedding()
    assert theirs.std() > 0.1
    torch.testing.assert_close(embedding.features, theirs, atol=TOLERANCE, rtol=0)

    rng = np.random.default_rng(0)
    mask = torch.nn.functional.interpolate(
        torch.from_numpy(rng.normal(0, 8, (1, 1, 16, 16)).astype(np.float32)), 256, mode="bilinear"
    )[0, 0].numpy()
    for name, prompt in prompts_of(size_hw, mask).items():
        for multimask in (False, True):
            masks, iou, logits = upstream.predictor.predict(
                point_coords=prompt.points,
                point_labels=prompt.labels,
                box=prompt.box,
                mask_input=None if prompt.mask_logits is None else prompt.mask_logits[None],
                multimask_output=multimask,
            )
            where = f"{orientation}, {name}, multimask {multimask}"
            scale = (embedding.scaled_size[1] / size_hw[1], embedding.scaled_size[0] / size_hw[0])
            batch = batch_prompts([prompt], scale, 256)
            our_logits, our_iou = ours.model.decode(
                embedding.features,
                batch.points,
                batch.labels,
                batch.mask_logits,
                masks=slice(1, None) if multimask else slice(0, 1),
            )
            assert np.abs(our_logits[0].numpy() - logits).max() < TOLERANCE, where
            assert np.abs(our_iou[0].numpy() - iou).max() < TOLERANCE, where
            best = int(iou.argmax())
            segments = ours.decode(embedding, [prompt], multimask=multimask)
            different = np.mean(segments.masks[0] != masks[best])
            assert different <= 0.001, f"{where}: {different:.2%} of the pixels differ"
            assert 0.0 < masks[best].mean() < 1.0, f"{where}: this shows nothing"
    large, _, low = upstream.predictor.predict(box=prompt.box, return_logits=True)
    ours_large = ours.image_logits(torch.from_numpy(low), embedding)
    assert np.abs(ours_large.numpy() - large).max() < TOLERANCE


@torch.inference_mode()
def test_prompts_of_all_kinds_in_one_batch(ours: Predictor) -> None:
    """Each object gets what it would get alone: the padding is not seen."""
    size_hw = SIZES["landscape"]
    embedding = ours.encode(picture(size_hw))
    mask = np.random.default_rng(1).normal(0, 5, (256, 256)).astype(np.float32)
    prompts = list(prompts_of(size_hw, mask).values())
    together = ours.decode(embedding, prompts)
    for i, prompt in enumerate(prompts):
        alone = ours.decode(embedding, [prompt])
        assert np.abs(together.logits[i] - alone.logits[0]).max() < TOLERANCE
        assert abs(together.predicted_iou[i] - alone.predicted_iou[0]) < TOLERANCE
        assert np.mean(together.masks[i] != alone.masks[0]) <= 0.001


def test_conversion_leaves_nothing_out(upstream: types.SimpleNamespace, ours: Predictor) -> None:
    converted = convert_official(upstream.model.state_dict())
    assert converted.keys() == ours.model.state_dict().keys()


def test_checkpoints_of_training_scripts_are_the_same_model(
    upstream: types.SimpleNamespace, ours: Predictor, tmp_path: Path
) -> None:
    state = upstream.model.state_dict()
    for number, wrapped in enumerate(
        (
            {"model": state, "epoch": 3},
            {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}},
        )
    ):
        path = tmp_path / f"{number}.pt"
        torch.save(wrapped, path)
        loaded = load_sam(path).state_dict()
        assert all(torch.equal(t, loaded[n]) for n, t in ours.model.state_dict().items())
