"""Compiles modules with OpenVINO, and keeps the results on disk: a second start does not wait.

A file is the SHA-256 of what follows it, and what OpenVINO exports. Its name says what it was made
of: the module's code and weights, the sizes, the settings, the machine and the versions.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import openvino
import torch
from torch import Tensor, nn

from mobile_sam import modeling
from mobile_sam.backends import free_unused
from mobile_sam.checkpoints import cache_directory, remove_abandoned
from mobile_sam.quoting import first_line

PRECISIONS = {"fp32": openvino.Type.f32, "bf16": openvino.Type.bf16}

_KEPT = 24  # files, each as large as the weights at most
_DIGEST_BYTES = 32
_LOGGER = logging.getLogger(__name__)
_COMPILING = Lock()

Model = Callable[[list[Any]], Any]
"""Runs a compiled module on its inputs, NumPy arrays; returns its outputs by index."""


@lru_cache(maxsize=1)
def core() -> openvino.Core:
    """Returns OpenVINO's core, one for the process: with its last one it unloads its plugins, under
    the feet of their threads."""
    return openvino.Core()


def precisions() -> list[str]:
    """Returns the precisions that this CPU has."""
    abilities = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return [name for name in PRECISIONS if name == "fp32" or name.upper() in abilities]


def compiled(
    module: nn.Module, examples: tuple[Tensor, ...], shapes: list[tuple[int, ...]], precision: str
) -> Model:
    """Returns a module compiled for the CPU; from the user's cache if it has it, in some tenths of
    a second, and else in many, for the next time.

    Args:
        module: in evaluation mode.
        examples: inputs, to trace it with.
        shapes: of the inputs, -1 where any size may come.
        precision: "fp32" or "bf16".
    """
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
    }
    path = cache_directory() / "openvino" / f"{_identity(module, shapes, settings)}.bin"
    kept = _read(path)
    if kept is not None:
        try:
            return core().import_model(kept, "CPU", settings)
        except RuntimeError as error:  # whole, but not what this version reads
            _LOGGER.warning("%s: compiled anew: %s", path, first_line(error))
    # One at a time: what Python warns of is the process's, and so is the tracing of a module.
    with _COMPILING, warnings.catch_warnings():
        # That tracing fixes what is computed from sizes, which is wanted here.
        warnings.simplefilter("ignore")
        # OpenVINO itself would trace twice, to compare.
        traced = torch.jit.trace(module, examples, check_trace=False)
        model = openvino.convert_model(traced, input=shapes)
    del traced
    free_unused()  # what tracing took
    result = core().compile_model(model, "CPU", settings)
    del model
    _write(path, result.export_model().getbuffer())
    return result


def _identity(module: nn.Module, shapes: list[tuple[int, ...]], settings: dict[str, Any]) -> str:
    """Returns what tells a compiled module from all others, for a file's name."""
    digest = hashlib.sha256()
    machine = core().get_property("CPU", "FULL_DEVICE_NAME")
    versions = openvino.__version__, torch.__version__
    digest.update(repr((type(module).__name__, shapes, settings, machine, versions)).encode())
    for source in sorted(Path(modeling.__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def _read(path: Path) -> bytes | None:
    """Returns what a file holds, or None if there is none or it is damaged."""
    try:
        with path.open("rb") as file:
            digest, content = file.read(_DIGEST_BYTES), file.read()
        os.utime(path)  # those that are not used for long go first
    except OSError:
        return None
    if hashlib.sha256(content).digest() != digest:
        _LOGGER.warning("%s is damaged: the model is compiled anew", path)
        return None
    return content


def _write(path: Path, content: memoryview) -> None:
    """Writes a file whole or not at all, and removes those that were not used for longest."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path.parent)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".partial", delete=False) as file:
            partial = Path(file.name)
            try:
                file.write(hashlib.sha256(content).digest())
                file.write(content)
                file.close()
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
        newest_first = sorted(path.parent.glob("*.bin"), key=lambda p: -p.stat().st_mtime)
        for old in newest_first[_KEPT:]:
            old.unlink(missing_ok=True)
    except OSError as error:  # a full disk, a home that cannot be written
        _LOGGER.warning("%s: the compiled model is not kept: %s", path, error)
