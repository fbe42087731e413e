"""Compiles modules with OpenVINO, and keeps the results on disk: a second start does not wait.

A file is the SHA-256 of what follows it, and what OpenVINO exports. Its name says what it was made
of: the module's code and weights, the sizes, the settings, the machine and the versions.
"""

from __future__ import annotations

import hashlib
import logging
import os
import uuid
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import openvino
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mobile_sam import modeling
from mobile_sam.backends import free_unused
from mobile_sam.checkpoints import cache_directory, remove_abandoned
from mobile_sam.modeling import SamConfig
from mobile_sam.quoting import first_line

PRECISIONS = {"fp32": openvino.Type.f32, "bf16": openvino.Type.bf16}

_KEPT = 24  # files, each as large as the weights at most
_DIGEST_BYTES = 32
_CHUNK_BYTES = 2**20
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


class Recipe:
    """What is compiled for the CPU, and how."""

    def __init__(
        self,
        name: str,
        config: SamConfig,
        part: nn.Module,
        shapes: list[tuple[int, ...]],
        precision: str,
    ) -> None:
        """Says what it is made of.

        Args:
            name: of what is compiled.
            config: of the model that it belongs to.
            part: of the model, whose weights it has. Name, configuration, part and shapes say all
                of what is compiled, before it is made.
            shapes: of the inputs, -1 where any size may come.
            precision: "fp32" or "bf16".
        """
        self._shapes = shapes
        self._settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
        }
        digest = hashlib.sha256()
        machine = core().get_property("CPU", "FULL_DEVICE_NAME")
        versions = openvino.__version__, torch.__version__
        made_of = name, config, shapes, self._settings, machine, versions
        digest.update(repr(made_of).encode())
        sources = *Path(modeling.__file__).parent.glob("*.py"), *Path(__file__).parent.glob("*.py")
        for source in sorted(sources):
            digest.update(source.read_bytes())
        for key, tensor in [*part.named_parameters(), *part.named_buffers()]:
            digest.update(key.encode())
            digest.update(tensor.detach().contiguous().numpy().tobytes())
        self._path = cache_directory() / "openvino" / f"{digest.hexdigest()[:32]}.bin"

    def read(self) -> Model | None:
        """Returns it from the user's cache, in tenths of a second, or None if that has it not."""
        content = _mapped(self._path)
        if content is None:
            return None
        try:
            shared = openvino.Tensor(content, shared_memory=True)
            return _Compiled(core().import_model(shared, "CPU", self._settings), content)
        except RuntimeError as error:  # whole, but not what this version reads
            _LOGGER.warning("%s: compiled anew: %s", self._path, first_line(error))
            return None

    def compile(self, module: nn.Module, examples: tuple[Tensor, ...]) -> Model:
        """Compiles it, in some seconds, and keeps it in the user's cache.

        Args:
            module: in evaluation mode.
            examples: inputs, to trace it with.
        """
        # One at a time: what Python warns of is the process's, and so is the tracing of a module.
        with _COMPILING, warnings.catch_warnings():
            # That tracing fixes what is computed from sizes, which is wanted here.
            warnings.simplefilter("ignore")
            # OpenVINO itself would trace twice, to compare.
            traced = torch.jit.trace(module, examples, check_trace=False)
            model = openvino.convert_model(traced, input=self._shapes)
        del traced
        free_unused()  # what tracing took
        result = core().compile_model(model, "CPU", self._settings)
        del model
        _write(self._path, result.export_model().getbuffer())
        return self.read() or _Compiled(result)  # what is read takes less memory


@dataclass
class _Compiled:
    """A model that any threads may run, one after the other: it has one place for its outputs,
    from which they are copied only after they were made."""

    model: openvino.CompiledModel
    content: NDArray[np.uint8] | None = None  # that its weights are read from whenever it runs
    running: Lock = field(default_factory=Lock)

    def __call__(self, inputs: list[Any]) -> Any:
        with self.running:
            return self.model(inputs)


def _mapped(path: Path) -> NDArray[np.uint8] | None:
    """Returns what a file holds, which stays in the file, or None if there is none, it cannot be
    read or is damaged."""
    try:
        with path.open("rb") as file:
            wanted = file.read(_DIGEST_BYTES)
            found = hashlib.sha256()
            while chunk := file.read(_CHUNK_BYTES):
                found.update(chunk)
        with suppress(OSError):  # a robot's cache may be another user's
            os.utime(path)  # those that are not used for long go first
        if found.digest() == wanted:
            # "c", because OpenVINO takes nothing that is not to be written. Files are replaced
            # and removed, never changed, so that what is mapped stays.
            return np.memmap(path, np.uint8, "c", _DIGEST_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        _LOGGER.warning("%s: compiled anew: %s", path, error.strerror)
        return None
    _LOGGER.warning("%s is damaged: the model is compiled anew", path)
    return None


def _write(path: Path, content: memoryview) -> None:
    """Writes a file whole or not at all, and removes those that were not used for longest."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path.parent)
        partial = path.with_name(f"{uuid.uuid4().hex}.partial")
        try:
            with partial.open("xb") as file:  # for whom the umask says, not for this user alone
                file.write(hashlib.sha256(content).digest())
                file.write(content)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        newest_first = sorted(path.parent.glob("*.bin"), key=lambda p: -p.stat().st_mtime)
        for old in newest_first[_KEPT:]:
            old.unlink(missing_ok=True)
    except OSError as error:  # a full disk, a home that cannot be written
        _LOGGER.warning("%s: the compiled model is not kept: %s", path, error)
