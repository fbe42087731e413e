"""The ONNX export: the same results from ONNX Runtime, for any number of prompts and any size.

Of GPUs, what ONNX Runtime is told, and what is made of what it says: there is none here.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    """Masks alone, one, two and 17 objects, with all kinds of prompt."""
    x, y = BOXES[0][:2] + (BOXES[0][2:] - BOXES[0][:2]) / 2
    point, box = Prompt(points=[(x, y)]), Prompt(box=BOXES[1])
    mask = np.random.default_rng(0).normal(0, 4, (128, 128)).astype(np.float32)
    return [
        [Prompt(mask_logits=mask)],
        [point],
        [box, Prompt(box=BOXES[2], points=[(x, y), (3, 3)], labels=[0, 0])],
        [point, box, Prompt(mask_logits=mask), Prompt(box=BOXES[0], mask_logits=mask)] * 4 + [box],
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
    prompts = prompt_sets()[2]
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
        assert {len(n.input) for n in model.graph.node if n.op_type == "Clip"} <= {3}
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


def providers(*names: str) -> list[str]:
    return [f"{name}ExecutionProvider" for name in names]


def test_auto_takes_the_cpu_if_the_gpu_does_not_start(
    exported: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Compiled in, it is, but this ONNX Runtime cannot start it. Who asked for it is told."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers("CUDA", "CPU"))
    why = "device 'cuda' cannot be used: ONNX Runtime could not start CUDAExecutionProvider"
    for refused in ({"device": "cuda"}, {"device": "cuda:0", "backend": "onnx"}):
        with pytest.raises(ValueError, match=why.replace("'cuda'", "'cuda(:0)?'")):
            load_backend(exported, **refused)
    for backend in ("auto", "onnx"):
        caplog.clear()
        predictor = Predictor.from_weights(exported, backend=backend)
        assert [r.getMessage() for r in caplog.records] == [f"{why}, so the CPU runs the model"]
    assert len(predictor.decode(predictor.encode(SCENE.image), [Prompt(box=BOXES[0])])) == 1


def test_no_other_runs_the_model_if_one_fails(exported: Path) -> None:
    """ONNX Runtime would go on by itself with another one, and print that to the terminal."""
    from onnxruntime.capi.onnxruntime_pybind11_state import EPFail

    class Failing:
        def run(self, *arguments: object) -> None:
            raise EPFail("out of memory")

        def is_webgpu_graph_capture_enabled(self) -> bool:
            return False

    predictor = Predictor.from_weights(exported)
    predictor.model._encoder._sess = Failing()  # type: ignore[attr-defined]
    with pytest.raises(EPFail, match="out of memory"):
        predictor.encode(SCENE.image)


class Machine:
    """One with TensorRT, as far as ONNX Runtime's interface goes: the CPU runs the files.

    Attributes:
        opened: file, options of TensorRT, of each that was opened with it, be it in vain.
        errors: what opening them says, the next first.
        runs: the inputs of each run.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened: list[tuple[Path, dict[str, Any]]] = []
        self.errors: list[str] = []
        self.runs: list[tuple[Path, dict[str, np.ndarray]]] = []
        there = providers("Tensorrt", "CUDA", "CPU")
        session, machine = onnxruntime.InferenceSession, self

        class Session(session):  # type: ignore[misc, valid-type]
            def __init__(self, path: Path, *arguments: Any, **named: Any) -> None:
                first = named["providers"][0]
                self.path, self.first = path, first if isinstance(first, str) else first[0]
                assert named["enable_fallback"] == 0
                if self.first == there[0]:
                    machine.open(path, *named["providers"])
                super().__init__(path, providers=there[-1:])

            def get_providers(self) -> list[str]:
                return [self.first]

            def run(self, names: list[str], inputs: dict[str, np.ndarray]) -> Any:
                machine.runs.append((self.path, inputs))
                return super().run(names, inputs)

        monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there)

    def open(self, path: Path, tensorrt: tuple[str, dict[str, Any]], *others: object) -> None:
        """Builds an engine, if there is none, or fails."""
        assert others == (("CUDAExecutionProvider", {"device_id": 0}),)
        options = tensorrt[1]
        self.opened.append((path, options))
        if self.errors:
            from onnxruntime.capi.onnxruntime_pybind11_state import EPFail

            raise EPFail(self.errors.pop(0))
        (Path(options["trt_engine_cache_path"]) / "x_sm87.engine").write_text("an engine")

    def folders(self) -> list[Path]:
        return [Path(options["trt_engine_cache_path"]) for _, options in self.opened]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Machine]:
    monkeypatch.setenv("MOBILE_SAM_CACHE", str(tmp_path))
    yield Machine(monkeypatch)


def ranges(options: dict[str, Any]) -> dict[str, list[tuple[int, ...]]]:
    """The least, usual and greatest shape of each input that TensorRT was told of."""
    found: dict[str, list[tuple[int, ...]]] = {}
    for kind in ("min", "opt", "max"):
        for text in options[f"trt_profile_{kind}_shapes"].split(","):
            name, shape = text.split(":")
            found.setdefault(name, []).append(tuple(int(size) for size in shape.split("x")))
    return found


def test_tensorrt_is_told_of_all_sizes_that_come(exported: Path, machine: Machine) -> None:
    """So that nothing is built in the middle of the work. More objects come one part after the
    other; more points are refused."""
    predictor = Predictor.from_weights(exported, backend="tensorrt")
    for _ in range(2):
        predictor.prepare((240, 320))
    assert [path.name for path, _ in machine.runs] == [ENCODER_FILE, DECODER_FILE]
    embedding = predictor.encode(SCENE.image)
    rng = np.random.default_rng(0)
    many = Prompt(points=rng.uniform(0, 200, (16, 2)), box=BOXES[0])
    for prompts in (*prompt_sets(), [many]):
        assert predictor.decode(embedding, prompts).masks.any()
    told = {path: ranges(options) for path, options in machine.opened}
    for path, sizes in told.items():
        inputs = onnx.load(path).graph.input
        free = {i.name for i in inputs if i.type.tensor_type.shape.dim[0].dim_param}
        assert sizes.keys() == free
    seen = set()
    for path, inputs in machine.runs:
        for name, (least, usual, most) in told[path].items():
            shape = inputs[name].shape
            assert all(a <= b <= c for a, b, c in zip(least, usual, most, strict=True)), name
            assert all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True)), name
            seen.add((name, shape))
    assert {("labels", (16, 2)), ("labels", (1, 18)), ("points", (1, 1, 2))} <= seen
    with pytest.raises(ValueError, match="more than 16 points, which backend 'tensorrt'"):
        predictor.decode(embedding, [Prompt(points=rng.uniform(0, 200, (18, 2)))])


def test_engines_are_of_one_file_and_built_once(
    exported: Path, machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each with a folder of its own, which it finds again; other weights have another one."""
    load_backend(exported, backend="tensorrt")
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 4 and "TensorRT builds an engine for it, once" in said[0]
    assert said[0].startswith(str(exported / ENCODER_FILE)) and "ready after" in said[1]
    caplog.clear()
    load_backend(exported, backend="tensorrt")
    assert not caplog.records
    copied = tmp_path / "copied"
    shutil.copytree(exported, copied)
    load_backend(copied, backend="tensorrt")
    assert not caplog.records
    encoder, decoder = machine.folders()[:2]
    assert encoder != decoder and machine.folders() == [encoder, decoder] * 3
    assert encoder.parent == decoder.parent == tmp_path / "tensorrt"
    assert {options["trt_timing_cache_path"] for _, options in machine.opened} == {
        str(tmp_path / "tensorrt")
    }
    model = onnx.load(copied / DECODER_FILE)
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    largest.raw_data = bytes(len(largest.raw_data))
    onnx.save(model, copied / DECODER_FILE)
    load_backend(copied, backend="tensorrt")
    assert machine.folders()[-2] == encoder and machine.folders()[-1] not in (encoder, decoder)


def test_damaged_engines_are_built_anew(
    exported: Path, machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a build that was cut short, and what TensorRT does not read; once, not for ever."""
    load_backend(exported, backend="tensorrt")
    folders = machine.folders()
    for folder in folders:
        (folder / "left").touch()
    (folders[1] / "whole").unlink()
    timing = tmp_path / "tensorrt" / "x_sm87.timing"
    timing.touch()
    load_backend(exported, backend="tensorrt")
    assert (folders[0] / "left").exists() and not (folders[1] / "left").exists()
    damaged = "TensorRT EP could not deserialize engine from cache: /x_sm87.engine"
    machine.errors = [damaged]
    assert timing.exists()
    caplog.clear()
    load_backend(exported, backend="tensorrt")
    assert not (folders[0] / "left").exists() and (folders[0] / "whole").exists()
    assert not timing.exists()
    first, last = (record.getMessage() for record in caplog.records)
    assert first == (
        f"{exported / ENCODER_FILE}: what TensorRT kept of it is damaged, and built anew: {damaged}"
    )
    assert "ready after" in last
    machine.errors = [damaged] * 2
    with pytest.raises(ValueError, match="could not start TensorrtExecutionProvider: .*could not"):
        load_backend(exported, backend="tensorrt")


def test_tensorrt_that_takes_parts_of_a_file_is_told_of_no_sizes(
    exported: Path, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    """ONNX Runtime would want those between the parts as well."""
    machine.errors = ["in this case, user also needs to provide shape profiles for the subgraph's"]
    load_backend(exported, backend="tensorrt")
    with_sizes, without, decoder = (options for _, options in machine.opened)
    assert ranges(with_sizes) and ranges(decoder)
    assert not [name for name in without if "profile" in name]
    assert "TensorRT takes only parts of it" in caplog.text
