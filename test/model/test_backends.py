"""What runs the model: each way against the padded fp32 reference, on the demo weights."""

from __future__ import annotations

import dataclasses
import os
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
import torch
from small_model import SMALL

from mobile_sam.backends import load_backend
from mobile_sam.backends.picture_encoders import MARGIN_CELLS
from mobile_sam.backends.pytorch import TorchSam
from mobile_sam.checkpoints import WeightsError, load_sam, save_safetensors
from mobile_sam.modeling import Sam
from mobile_sam.modeling.picture_encoder import PictureEncoder
from mobile_sam.modeling.sam import NOTHING, normalised
from mobile_sam.predictor import Embedding, Predictor
from mobile_sam.prompts import Prompt
from mobile_sam.segments import tight_box
from mobile_sam.training.examples import Example, SceneExamples

BACKENDS = ["torch", "openvino"]
SIZES = [(192, 256), (144, 256)]
SCENES = 6


@pytest.fixture(scope="module")
def sam() -> Sam:
    """The reference."""
    return load_sam("demo")


@pytest.fixture(scope="module", params=BACKENDS)
def predictor(request: pytest.FixtureRequest) -> Predictor:
    """As users have it."""
    if request.param == "openvino":
        pytest.importorskip("openvino")
    predictor = Predictor.from_weights("demo", "cpu", request.param)
    for size in [*SIZES, (256, 256)]:
        predictor.prepare(size)
    return predictor


def scenes(size_hw: tuple[int, int]) -> list[Example]:
    examples = SceneExamples((77,), size_hw)
    return [examples.get(i) for i in range(SCENES)]


def masks(predictor: Predictor, example: Example) -> np.ndarray:
    prompts = [Prompt(box=tight_box(mask)) for mask in example.masks]
    return predictor.decode(predictor.encode(example.image), prompts).masks


def test_a_picture_that_fills_the_input_is_encoded_exactly(sam: Sam, predictor: Predictor) -> None:
    image = SceneExamples((5,), (256, 256)).get(0).image
    wanted, found = (p.encode(image).features for p in (Predictor(sam), predictor))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("size_hw", SIZES)
def test_without_its_padding_a_picture_has_the_same_masks(
    sam: Sam, predictor: Predictor, size_hw: tuple[int, int]
) -> None:
    """Mean IoU at least 0.98 with the padded reference; 0.9 where an object lies at the edge."""
    reference = Predictor(sam)
    overlaps, at_the_edge = [], []
    for example in scenes(size_hw):
        for one, other in zip(masks(reference, example), masks(predictor, example), strict=True):
            overlap = (one & other).sum() / max((one | other).sum(), 1)
            overlaps.append(overlap)
            if one[-1].any():
                at_the_edge.append(overlap)
    assert np.mean(overlaps) >= 0.98
    assert at_the_edge and min(at_the_edge) >= 0.9


@pytest.mark.parametrize(("size_hw", "encode_padding"), [((144, 256), True), ((256, 144), False)])
def test_with_its_padding_a_picture_is_encoded_exactly(
    sam: Sam, size_hw: tuple[int, int], encode_padding: bool
) -> None:
    """Where that is asked for, and of portrait pictures."""
    (example, *_) = scenes(size_hw)
    exact = Predictor.from_weights("demo", "cpu", encode_padding=encode_padding)
    exact.prepare(size_hw)
    wanted, found = (p.encode(example.image).features for p in (Predictor(sam), exact))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def test_pictures_of_many_sizes_come_in_turn(sam: Sam) -> None:
    """More sizes than are kept, and the first one again."""
    predictor = Predictor(TorchSam(sam))
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (16 + 8 * i, 256, 3), dtype=np.uint8) for i in range(10)]
    images.append(images[0])
    embeddings = [predictor.encode(image).features for image in images]
    assert all(e.shape == embeddings[0].shape for e in embeddings)
    torch.testing.assert_close(embeddings[-1], embeddings[0])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that are compiled in no time, for what has nothing to do with masks."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_safetensors(Sam(dataclasses.replace(SMALL, image_size=256)), path)
    return path


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[object]:
    """The encoders that OpenVINO converts, from an empty cache on."""
    openvino = pytest.importorskip("openvino")
    monkeypatch.setenv("MOBILE_SAM_CACHE", str(tmp_path))
    found: list[object] = []
    convert = openvino.convert_model

    def counted(module: object, **named: object) -> object:
        if hasattr(module, "encoder"):
            found.append(module)
        return convert(module, **named)

    monkeypatch.setattr(openvino, "convert_model", counted)
    return found


def test_a_third_picture_of_a_size_is_worth_a_compilation(
    conversions: list[object], tiny: Path
) -> None:
    predictor = Predictor.from_weights(str(tiny), "cpu", "openvino")
    image = np.zeros((64, 256, 3), np.uint8)
    first, second = (predictor.encode(image).features for _ in range(2))
    assert not conversions
    third, fourth = (predictor.encode(image).features for _ in range(2))
    assert len(conversions) == 1
    for other in (second, third, fourth):
        torch.testing.assert_close(other, first, atol=1e-4, rtol=0)
    predictor.prepare((64, 256))
    assert len(conversions) == 1


def test_what_was_compiled_is_found_again(
    conversions: list[object], tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By the same weights alone, and only undamaged."""
    from mobile_sam.backends.openvino import OpenVinoSam

    sam = load_sam(tiny)
    image = scenes((144, 256))[0].image

    def logits(model: Sam) -> torch.Tensor:
        predictor = Predictor(OpenVinoSam(model))
        predictor.prepare((144, 256))
        return predictor.logits(predictor.encode(image), [Prompt(points=[(99, 40)])])[0]

    first = logits(sam)
    assert len(conversions) == 1
    assert torch.equal(logits(sam), first)
    assert len(conversions) == 1
    other = Sam(sam.config).eval().requires_grad_(False)
    other.load_state_dict(sam.state_dict())
    next(other.image_encoder.parameters()).mul_(1.5)
    assert not torch.equal(logits(other), first)
    assert len(conversions) == 2
    files = sorted((tmp_path / "openvino").iterdir())
    assert [file.suffix for file in files] == [".bin"] * 3  # two encoders, one decoder
    for file in files:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    assert torch.equal(logits(sam), first)
    assert len(conversions) == 3
    assert "is damaged" in caplog.text


def test_what_was_compiled_before_serves_the_first_picture(
    conversions: list[object], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an encoder of PyTorch's, with weights that stay in the files, also once those are
    removed."""
    image = scenes((144, 256))[0].image
    earlier = Predictor.from_weights(str(tiny), "cpu", "openvino")
    earlier.prepare((144, 256))
    wanted = earlier.encode(image).features
    monkeypatch.setattr("mobile_sam.backends.picture_encoders.PictureEncoder", None)
    predictor = Predictor.from_weights(str(tiny), "cpu", "openvino")
    assert torch.equal(predictor.encode(image).features, wanted)
    assert len(conversions) == 1
    mapped = Path("/proc/self/maps").read_text()
    for file in (tmp_path / "openvino").iterdir():
        assert str(file) in mapped
        file.unlink()
    assert torch.equal(predictor.encode(image).features, wanted)


def test_a_cache_of_another_user_is_used_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who may read it and not write in it; what cannot be read is said."""
    pytest.importorskip("openvino")
    from mobile_sam.backends.openvino_models import Recipe

    def refuse(*arguments: object, **named: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setenv("MOBILE_SAM_CACHE", str(tmp_path))
    module, example = torch.nn.Linear(3, 2), torch.rand(1, 3)
    recipe = Recipe("linear", SMALL, module, [(1, 3)], "fp32")
    assert recipe.read() is None
    before = os.umask(0o027)
    try:
        recipe.compile(module, (example,))
    finally:
        os.umask(before)
    (file,) = (tmp_path / "openvino").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    monkeypatch.setattr(os, "utime", refuse)
    model = recipe.read()
    assert model is not None and not caplog.records
    np.testing.assert_allclose(model([example.numpy()])[0], module(example).detach(), atol=1e-6)
    monkeypatch.setattr(Path, "open", refuse)
    assert recipe.read() is None
    assert [r.getMessage() for r in caplog.records] == [f"{file}: compiled anew: Permission denied"]


@pytest.mark.parametrize("backend", ["openvino", "auto"])
def test_a_compilation_that_fails_is_an_error_if_it_was_asked_for(
    conversions: list[object],
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    backend: str,
) -> None:
    """Each time; else PyTorch goes on, and that is said once."""
    import openvino

    def fail(*arguments: object, **named: object) -> None:
        raise RuntimeError("no such operation\nin a graph")

    monkeypatch.setattr(openvino, "convert_model", fail)
    predictor = Predictor.from_weights(str(tiny), "cpu", backend)
    image = scenes((144, 256))[0].image
    for _ in range(2):
        predictor.encode(image)
    for attempt in (lambda: predictor.prepare((144, 256)), lambda: predictor.encode(image)) * 2:
        if backend == "openvino":
            with pytest.raises(RuntimeError, match="no such operation"):
                attempt()
        else:
            attempt()
    assert [record.getMessage() for record in caplog.records] == [
        "OpenVINO cannot compile for pictures of 256 x 144, so PyTorch runs them: no such operation"
    ] * (backend == "auto")


def test_without_a_place_to_keep_it_it_is_compiled_all_the_same(
    conversions: list[object],
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    monkeypatch.setenv("MOBILE_SAM_CACHE", str(in_the_way))
    predictor = Predictor.from_weights(str(tiny), "cpu", "openvino")
    predictor.prepare((64, 256))
    assert len(conversions) == 1
    assert predictor.encode(np.zeros((64, 256, 3), np.uint8)).features.isfinite().all()


def test_openvino_decodes_any_prompts_as_the_reference_does(sam: Sam) -> None:
    """Of each kind alone and all at once: numbers of objects and of points are free."""
    pytest.importorskip("openvino")
    predictor = Predictor.from_weights("demo", "cpu", "openvino")
    predictor.prepare((192, 256))
    reference = Predictor(sam)
    example = SceneExamples((5,), (192, 256)).get(1)
    embedding = reference.encode(example.image)
    mask = reference.mask_logits(example.masks[0])
    kinds = [
        Prompt(box=tight_box(example.masks[0])),
        Prompt(points=[(99, 40)]),
        Prompt(points=[(99, 40), (20, 20), (50, 90)], labels=[1, 0, 1]),
        Prompt(mask_logits=mask),
        Prompt(box=tight_box(example.masks[0]), mask_logits=mask),
    ]
    for prompts in ([kind] for kind in kinds):
        agree(reference, predictor, embedding, prompts)
    agree(reference, predictor, embedding, kinds)
    agree(reference, predictor, embedding, kinds * 3)


def agree(one: Predictor, other: Predictor, embedding: Embedding, prompts: list[Prompt]) -> None:
    (wanted, wanted_iou), (found, iou) = (p.logits(embedding, prompts) for p in (one, other))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
    torch.testing.assert_close(iou, wanted_iou, atol=1e-4, rtol=0)


def test_pictures_are_encoded_while_another_thread_prepares(
    conversions: list[object], tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, and once only is it compiled."""
    import openvino

    begun, go_on = Event(), Event()
    convert = openvino.convert_model

    def slow(*arguments: object, **named: object) -> object:
        begun.set()
        go_on.wait(60)
        return convert(*arguments, **named)

    monkeypatch.setattr(openvino, "convert_model", slow)
    predictor = Predictor.from_weights(str(tiny), "cpu", "openvino")
    image = scenes((144, 256))[0].image
    thread = Thread(target=predictor.prepare, args=((144, 256),))
    thread.start()
    assert begun.wait(60)
    before = [predictor.encode(image).features for _ in range(4)]
    go_on.set()
    thread.join(60)
    after = predictor.encode(image).features
    assert len(conversions) == 1
    for features in before:
        torch.testing.assert_close(features, after, atol=1e-4, rtol=0)
    assert not torch.equal(before[0], after)  # another one runs it now


def test_threads_have_their_own_results_from_one_predictor(predictor: Predictor) -> None:
    def result(example: Example) -> tuple[torch.Tensor, torch.Tensor]:
        embedding = predictor.encode(example.image)
        prompts = [Prompt(box=tight_box(mask)) for mask in example.masks]
        return embedding.features, predictor.logits(embedding, prompts)[0]

    two = scenes((192, 256))[:2]
    alone = [result(example) for example in two]

    def often(number: int) -> None:
        for _ in range(4):
            for found, wanted in zip(result(two[number]), alone[number], strict=True):
                torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(often, range(2)))


def test_many_objects_are_decoded_in_parts_alike(sam: Sam) -> None:
    """Seven with boxes, points and masks: more than a CPU is given at once."""
    example = SceneExamples((5,), (256, 256)).get(1)
    boxes = [tight_box(mask) for mask in example.masks]
    mask = np.random.default_rng(0).normal(0, 4, (128, 128)).astype(np.float32)
    kinds = [Prompt(points=[(99, 40)]), Prompt(mask_logits=mask, box=boxes[0])]
    prompts = [*kinds, *(Prompt(box=box) for box in (boxes * 5)[:5])]
    whole, parts = Predictor(sam), Predictor(TorchSam(sam))
    for chosen in (prompts, prompts[2:]):
        logits, iou = whole.logits(whole.encode(example.image), chosen)
        found, found_iou = parts.logits(parts.encode(example.image), chosen)
        torch.testing.assert_close(found, logits, atol=2e-3, rtol=0)
        torch.testing.assert_close(found_iou, iou, atol=1e-4, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_logits_below_the_picture_are_left_out(backend: str) -> None:
    """All others are as they were; of three objects, with points and masks."""
    predictor = Predictor.from_weights("demo", "cpu", backend)
    predictor.prepare((144, 256))
    features = predictor.encode(scenes((144, 256))[0].image).features
    points, labels = torch.rand(3, 2, 2) * 144, torch.tensor([[1, 0], [1, -1], [2, 3]])
    masks = torch.randn(3, 1, 128, 128)
    for masks_of_all in (None, masks):
        logits, iou = predictor.model.decode(features, points, labels, masks_of_all)
        cut, cut_iou = predictor.model.decode(features, points, labels, masks_of_all, rows=19)
        torch.testing.assert_close(cut_iou, iou, atol=1e-5, rtol=0)
        torch.testing.assert_close(cut[:, :, :76], logits[:, :, :76], atol=1e-4, rtol=0)
        assert (cut[:, :, 76:] == NOTHING).all() and (logits[:, :, 76:] != NOTHING).all()


def test_wider_margins_come_nearer(sam: Sam) -> None:
    """What is left out is the padding's own change; all of it computed, nothing is."""
    image = scenes((144, 256))[0].image
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    config = sam.config
    with torch.no_grad():
        wanted = sam.encode(pixels)[..., :18, :]
        errors = []
        for margin in (0, MARGIN_CELLS * config.stride, 256 - 144):
            encoder = PictureEncoder(sam.image_encoder, config, 144, margin)
            found = encoder(normalised(pixels, encoder.region_hw))[..., :18, :]
            errors.append(float((found - wanted).abs().mean()))
    assert errors[0] > 2 * errors[1] > 0
    assert errors[2] < 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
def test_bf16_has_nearly_the_same_masks(sam: Sam, backend: str) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
        from mobile_sam.backends.openvino_models import precisions

        if "bf16" not in precisions():
            pytest.skip("this CPU has no bf16")
    half = Predictor.from_weights("demo", "cpu", backend, "bf16", encode_padding=True)
    half.prepare((256, 256))
    overlaps = [
        (one & other).sum() / max((one | other).sum(), 1)
        for example in scenes((256, 256))
        for one, other in zip(masks(Predictor(sam), example), masks(half, example), strict=True)
    ]
    assert np.mean(overlaps) >= 0.97


def test_auto_takes_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    assert type(load_backend("demo", "cpu")).__name__ == "OpenVinoSam"
    for module in ("openvino", "openvino_models"):
        monkeypatch.delitem(sys.modules, f"mobile_sam.backends.{module}")
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert type(load_backend("demo", "cpu")).__name__ == "TorchSam"
    with pytest.raises(ValueError, match="'openvino' cannot be used.*: pip install openvino$"):
        load_backend("demo", "cpu", "openvino")


def test_auto_goes_on_without_what_does_not_start(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("openvino")

    def fail() -> None:
        raise RuntimeError("no plugins")

    monkeypatch.setattr("mobile_sam.backends.openvino_models.core", fail)
    assert type(load_backend("demo", "cpu")).__name__ == "TorchSam"
    assert "OpenVINO does not start, so PyTorch runs the model: no plugins" in caplog.text
    with pytest.raises(ValueError, match="'openvino' cannot be used: no plugins"):
        load_backend("demo", "cpu", "openvino")


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(ValueError, match="backend 'tensorflow' is none of auto, torch"):
        load_backend("demo", backend="tensorflow")
    with pytest.raises(ValueError, match="precision 'int4' is none of auto, fp32"):
        load_backend("demo", precision="int4")
    with pytest.raises(ValueError, match="'fp16' cannot be used on the CPU"):
        load_backend("demo", "cpu", "torch", "fp16")
    with pytest.raises(WeightsError, match="demo: backend 'onnx' takes the directory"):
        load_backend("demo", backend="onnx")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device 'cuda' cannot be used"):
            load_backend("demo", "cuda")
