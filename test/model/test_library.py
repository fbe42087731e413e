"""The library as its users call it: prompts, weights, command line."""

import io
import pickle
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mobile_sam import checkpoints
from mobile_sam.checkpoints import WEIGHTS, WeightsError, git_blob_id, load_sam, save_safetensors
from mobile_sam.choices import DEFAULT_WEIGHTS
from mobile_sam.mask_choice import choose_masks
from mobile_sam.modeling import DEMO, Sam, SamConfig
from mobile_sam.postprocess import regions_from_logits
from mobile_sam.predictor import Predictor
from mobile_sam.prompts import Prompt
from mobile_sam.scenes import MovingScene
from mobile_sam.segments import tight_box
from mobile_sam.training.evaluate import mask_iou


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "needs a box, points or mask_logits"),
        ({"box": [1, 2, 3]}, r"box has shape \(3,\)"),
        ({"box": [5, 5, 5, 9]}, r"box \[5.0, 5.0, 5.0, 9.0\] has no inside"),
        ({"box": [9, 5, 5, 9]}, "has no inside"),
        ({"box": [float("nan"), 5, 5, 9]}, r"box \[nan"),
        ({"points": [1, 2]}, r"points has shape \(2,\)"),
        ({"points": [[1, 2]], "labels": [1, 0]}, r"labels has shape \(2,\), for 1 points"),
        ({"points": [[1, 2]], "labels": [3]}, r"labels \[3\.?0?\]"),
        ({"labels": [1]}, "labels without points"),
        ({"mask_logits": np.zeros((4, 5))}, "not square"),
    ],
)
def test_bad_prompts_name_field_and_value(fields: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Prompt(**fields)


def test_masks_are_those_of_two_bilinear_resizes() -> None:
    """Against torch's own, done as SAM does: to the input, cut, to the image."""
    torch.manual_seed(0)
    logits = torch.nn.functional.interpolate(torch.randn(3, 1, 12, 12), 64, mode="bilinear")[:, 0]
    logits[2] = -1
    regions = regions_from_logits(logits, 256, (192, 256), (240, 320))
    large = torch.nn.functional.interpolate(logits[:, None], (256, 256), mode="bilinear")
    picture = large[..., :192, :256]
    exact = torch.nn.functional.interpolate(picture, (240, 320), mode="bilinear")[:, 0].numpy()
    for values, box, crop, stable in zip(
        exact, regions.boxes, regions.crops, regions.stability, strict=True
    ):
        x0, y0, x1, y1 = box
        mask = np.zeros(values.shape, bool)
        mask[y0:y1, x0:x1] = crop
        assert ((mask != (values > 0)) & (np.abs(values) > 1e-4)).sum() == 0
        assert (box == tight_box(mask)).all()
        lax = np.count_nonzero(values > -1)
        assert stable == pytest.approx(np.count_nonzero(values > 1) / max(lax, 1), abs=1e-3)
    assert regions.crops[2].size == 0 and not regions.boxes[2].any()


def test_which_of_the_masks_is_meant() -> None:
    """The clear one for a clear prompt if it is stable, else the best of the others."""
    sure = torch.full((16, 16), -8.0)
    sure[4:12, 4:12] = 8
    unsure = torch.where(sure > 0, 0.04, -8.0)  # gone if cut a little higher
    logits = torch.stack([torch.stack([first] + [sure] * 3) for first in (sure, sure, unsure)])
    iou = torch.tensor([[0.9, 0.1, 0.8, 0.3]] * 3)
    ambiguous = torch.tensor([False, True, False])
    assert choose_masks(logits, iou, ambiguous).tolist() == [0, 2, 2]


PACKAGED = [entry.name for entry in WEIGHTS.values() if entry.packaged]


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_weights_are_what_the_registry_says(name: str) -> None:
    checkpoints.verify(WEIGHTS[name])
    assert WEIGHTS[name].path.stat().st_size < 12e6


@pytest.mark.parametrize(("name", "least"), [("demo", 0.6), (DEFAULT_WEIGHTS, 0.9)])
def test_packaged_weights_segment(name: str, least: float) -> None:
    predictor = Predictor.from_weights(name, "cpu")
    found = []
    for index in (0, 40, 80):
        scene = MovingScene(5, (240, 320), 3).frame(index)
        masks = [scene.labels == i for i in (1, 2, 3) if (scene.labels == i).sum() > 100]
        segments = predictor.decode(
            predictor.encode(scene.image), [Prompt(box=tight_box(mask)) for mask in masks]
        )
        found += [mask_iou(f, w) for f, w in zip(segments.masks, masks, strict=True)]
    assert np.mean(found) > least


def test_a_mask_prompt_survives_the_way_through_the_model_sizes() -> None:
    predictor = Predictor(Sam(DEMO))
    mask = np.zeros((120, 160), bool)
    mask[30:90, 40:100] = True
    logits = predictor.mask_logits(mask)
    regions = regions_from_logits(torch.from_numpy(logits)[None], 256, (192, 256), (120, 160))
    x0, y0, x1, y1 = regions.boxes[0]
    back = np.zeros_like(mask)
    back[y0:y1, x0:x1] = regions.crops[0]
    assert mask_iou(back, mask) > 0.95
    assert (logits[predictor.model.config.mask_size * 3 // 4 :] < 0).all()


def test_safetensors_round_trip(tmp_path: Path) -> None:
    config = SamConfig(**{**DEMO.__dict__, "image_size": 128, "encoder_depths": (1, 1, 1, 1)})
    model = Sam(config).eval()
    path = tmp_path / "own.safetensors"
    save_safetensors(model, path)
    loaded = load_sam(path)
    assert loaded.config == config
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name


def test_eight_bits_are_a_quarter_of_the_bytes_and_nearly_the_same_model(tmp_path: Path) -> None:
    model = load_sam("demo")
    whole, small = tmp_path / "whole.safetensors", tmp_path / "small.safetensors"
    save_safetensors(model, whole)
    save_safetensors(model, small, torch.int8)
    assert small.stat().st_size < 0.3 * whole.stat().st_size
    loaded = load_sam(small)
    for name, tensor in model.state_dict().items():
        error = (loaded.state_dict()[name] - tensor).abs()
        if tensor.ndim < 2:
            assert (error <= tensor.abs() * 2**-11 + 2**-24).all(), name
        else:  # half a step of the row
            largest = tensor.abs().flatten(1).amax(dim=1).view(-1, *[1] * (tensor.ndim - 1))
            assert (error <= largest * 0.501 / 127).all(), name
    assert any((loaded.state_dict()[n] != t).any() for n, t in model.state_dict().items())


def test_eight_bits_with_scales_of_another_shape(tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    save_file({"a": torch.ones(4, 8, dtype=torch.int8), "a.scale": torch.ones(3)}, path)
    with pytest.raises(WeightsError, match=r"bad.safetensors: .*'a' have shape \(3,\).*\(4, 8\)"):
        load_sam(path)


class _Payload:
    """A pickle that would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.write_text, (self.path, "executed"))


def test_bad_files_are_named_and_nothing_in_them_runs(tmp_path: Path) -> None:
    payload, trace = tmp_path / "payload.pt", tmp_path / "trace"
    payload.write_bytes(pickle.dumps(_Payload(trace)))
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(WEIGHTS["demo"].path.read_bytes()[:100_000])
    other = tmp_path / "other.pt"
    torch.save({"image_encoder.patch_embed.seq.0.c.weight": torch.zeros(1)}, other)
    for path, text in ((payload, "payload.pt"), (cut, "cut.safetensors"), (other, "has")):
        with pytest.raises(WeightsError, match=text) as caught:
            load_sam(path)
        assert str(path) in str(caught.value)
    assert not trace.exists()


def test_offline_says_where_to_put_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOBILE_SAM_CACHE", str(tmp_path))

    def unreachable(*args: object, **options: object) -> object:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(checkpoints.urllib.request, "urlopen", unreachable)
    with pytest.raises(WeightsError) as caught:
        load_sam("mobile_sam")
    assert f"put it at {tmp_path / 'mobile_sam.pt'}" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_download_of_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOBILE_SAM_CACHE", str(tmp_path))

    class Response(io.BytesIO):
        headers = {"Content-Length": "5"}  # noqa: RUF012

    monkeypatch.setattr(checkpoints.urllib.request, "urlopen", lambda *a, **k: Response(b"hello"))
    with pytest.raises(WeightsError, match="not the weights 'mobile_sam'"):
        load_sam("mobile_sam")
    assert not list(tmp_path.iterdir())


def test_git_blob_id(tmp_path: Path) -> None:
    """The recorded name of an empty file and of "hello"."""
    path = tmp_path / "file"
    path.write_bytes(b"")
    assert git_blob_id(path) == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    path.write_bytes(b"hello\n")
    assert git_blob_id(path) == "ce013625030ba8dba906f756967f9e9ca394464a"
