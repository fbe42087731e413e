"""Files that a user may be given: none is executed, each gives a result or one clear message."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import strategies as some
import torch
from effort import cases
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from mobile_sam.backends.onnx import OnnxSam
from mobile_sam.checkpoints import WeightsError, load_sam, read_checkpoint, save_safetensors
from mobile_sam.export import DECODER_FILE, ENCODER_FILE
from mobile_sam.modeling import DEMO, Sam, SamConfig
from mobile_sam.run_lengths import compress, counts_from_mask, decompress, mask_from_counts

pytestmark = pytest.mark.usefixtures("limited_memory")

TENSORS = {"a": torch.arange(6.0).view(2, 3), "layers.0.b": torch.ones(4, dtype=torch.float16)}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


class Hostile:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, *call: Any) -> None:
        self._call = call

    def __reduce__(self) -> Any:
        return self._call[0], self._call[1:]


def saved(content: Any, is_archive: bool = True) -> bytes:
    """What `torch.save` makes of it."""
    file = BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=is_archive)
    return file.getvalue()


def archive(data_pkl: bytes, method: int = zipfile.ZIP_STORED) -> bytes:
    """A `.pt` archive around a pickle of any kind."""
    file = BytesIO()
    with zipfile.ZipFile(file, "w", method) as target:
        target.writestr("archive/data.pkl", data_pkl)
        target.writestr("archive/version", "3\n")
        target.writestr("archive/data/0", bytes(64))
    return file.getvalue()


def safetensors_file(header: Any, body: bytes = bytes(48), length: int | None = None) -> bytes:
    """A safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def read(path: Path, data: bytes) -> Any:
    """Returns what a checkpoint holds, or None with one clear message."""
    path.write_bytes(data)
    try:
        return read_checkpoint(path)
    except WeightsError as error:
        said = str(error)
    assert str(path) in said and "\n" not in said and len(said) < 500, said
    return None


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place for a file of any suffix."""
    return tmp_path_factory.mktemp("files") / "file"


@pytest.mark.parametrize("is_archive", [True, False], ids=["archive", "legacy"])
@pytest.mark.parametrize("function", [os.mkdir, exec, eval, print, torch.load, getattr, __import__])
def test_nothing_in_a_checkpoint_is_executed(
    function: Callable[..., Any], is_archive: bool, tmp_path: Path
) -> None:
    made = tmp_path / "made"
    code = f"__import__('os').mkdir({str(made)!r})"
    argument = code if function in (exec, eval) else str(made)
    for content in (Hostile(function, argument), {"model": Hostile(function, argument)}):
        for data in (saved(content, is_archive), pickle.dumps(content)):
            path = tmp_path / "weights.pt"
            assert read(path, data) is None
            assert not made.exists()
    # The sample would have worked.
    if function in (os.mkdir, exec, eval):
        pickle.loads(pickle.dumps(Hostile(function, argument)))
        assert made.exists()


@given(some.files(st.sampled_from([saved(TENSORS), saved(TENSORS, False), saved([1, "a"])])))
def test_spoilt_checkpoints(file: Path, data: bytes) -> None:
    found = read(file.with_suffix(".pt"), data)
    assert found is None or all(isinstance(t, torch.Tensor) for t in found[1].values())


@given(st.binary(max_size=64) | st.binary(max_size=64).map(lambda b: b"\x80\x02" + b + b"."))
@settings(max_examples=cases(60))
@example(b"\x80\x02}.")
def test_checkpoints_of_noise(file: Path, pickled: bytes) -> None:
    for data in (pickled, archive(pickled)):
        found = read(file.with_suffix(".pt"), data)
        assert found is None or not found[1]  # an empty table is one


def test_an_archive_that_grows_is_refused(tmp_path: Path) -> None:
    """A gigabyte from a megabyte."""
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("archive/data.pkl", pickle.dumps({}))
        target.writestr("archive/version", "3\n")
        with target.open("archive/data/0", "w") as entry:
            for _ in range(64):
                entry.write(bytes(1 << 24))
    with pytest.raises(WeightsError, match="bomb.pt: .*claims to hold 10737418"):
        read_checkpoint(path)


TENSOR = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F64", "BF16", "I8", "F4", "NONE"]),
        "shape": st.lists(st.sampled_from([0, 1, 2, 3, 2**31, 2**62, 2**64 - 1, -1]), max_size=4),
        "data_offsets": st.lists(st.sampled_from([0, 4, 24, 48, 2**40, -1]), max_size=3),
    }
)


@given(
    st.dictionaries(st.sampled_from(["a", "b", "__metadata__", "\n"]), TENSOR | JSON, max_size=3),
    st.sampled_from([None, None, 0, 1, 2**31, 2**63, 2**64 - 1]),
)
@example({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}, None)
@example({"a": {"dtype": "F32", "shape": [12], "data_offsets": [0, 48]}}, None)
def test_safetensors_with_hostile_headers(file: Path, header: Any, length: int | None) -> None:
    found = read(file.with_suffix(".safetensors"), safetensors_file(header, length=length))
    assert found is None or sum(t.nbytes for t in found[1].values()) <= 48


@given(some.files(st.just(save(TENSORS, {"config": DEMO.to_json()}))))
def test_spoilt_safetensors(file: Path, data: bytes) -> None:
    found = read(file.with_suffix(".safetensors"), data)
    assert found is None or isinstance(found[0], SamConfig)


FIELDS = json.loads(DEMO.to_json())
SPOILT_CONFIG = st.dictionaries(
    st.sampled_from([*FIELDS, "else"]),
    JSON | st.lists(st.integers(-1, 64) | st.integers(), max_size=5) | st.integers(0, 4096),
    max_size=3,
)


@given(SPOILT_CONFIG)
@example({"image_size": 1 << 60})
@example({"encoder_dims": [1 << 30] * 4})
def test_configurations(changes: dict[str, Any]) -> None:
    try:
        found = SamConfig.from_json(json.dumps(FIELDS | changes))
    except ValueError as error:
        said = str(error)
        assert "\n" not in said and len(said) < 300
    else:
        assert found.embedding_size >= 1 and SamConfig.from_json(found.to_json()) == found


@pytest.mark.parametrize("text", ["[]", "null", "7", "", "{", "[" * 100_000, '{"a": NaN}'])
def test_configurations_that_are_none(text: str) -> None:
    with pytest.raises(ValueError):
        SamConfig.from_json(text)


@given(SPOILT_CONFIG)
@settings(max_examples=cases(20))
@example({"encoder_dims": [4096] * 4, "embedding_dim": 4096, "decoder_mlp_dim": 16384})
def test_weights_of_another_architecture(file: Path, changes: dict[str, Any]) -> None:
    """What a file claims to be takes no memory before it is seen that it is not."""
    path = file.with_suffix(".safetensors")
    path.write_bytes(save(TENSORS, {"config": json.dumps(FIELDS | changes)}))
    with pytest.raises(WeightsError) as caught:
        load_sam(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sam = Sam(DEMO)
    sam.mask_decoder.iou_token.weight.data[0, 3] = float("nan")
    save_safetensors(sam, tmp_path / "nan.safetensors")
    with pytest.raises(WeightsError, match="iou_token.weight with numbers that are not finite"):
        load_sam(tmp_path / "nan.safetensors")


def onnx_file(side: int = 4) -> bytes:
    """A model that is one, but not ours."""
    onnx = pytest.importorskip("onnx")
    kind = onnx.TensorProto.FLOAT
    value = [onnx.helper.make_tensor_value_info(n, kind, [1, 3, side, side]) for n in "xy"]
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "g", value[:1], value[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    model.ir_version = 8
    model.metadata_props.add(key="config", value=DEMO.to_json())
    return model.SerializeToString()


@given(st.data())
def test_spoilt_onnx_files(file: Path, data: st.DataObject) -> None:
    pytest.importorskip("onnxruntime")
    content = data.draw(some.files(st.just(onnx_file())))
    directory = file.with_suffix(".onnx_export")
    directory.mkdir(exist_ok=True)
    for name in (ENCODER_FILE, DECODER_FILE):
        (directory / name).write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        OnnxSam(directory, "cpu")
    said = str(caught.value)
    assert str(directory) in said and "\n" not in said and len(said) < 600


@given(st.text(max_size=20) | st.text("0123456789:;<=>?@ABCPQRST_`ab", max_size=12))
def test_run_lengths(text: str) -> None:
    try:
        mask = mask_from_counts(decompress(text), (5, 7))
    except ValueError:
        return
    assert (mask_from_counts(decompress(compress(counts_from_mask(mask))), (5, 7)) == mask).all()
