"""TensorRT's engines of an ONNX export: for which sizes they are built, and where they are kept.

ONNX Runtime builds an engine of a file when it opens it, which takes minutes, and finds it the next
time. What it calls the engine does not depend on the file's weights, so each file has a folder of
its own in the user's cache. What is learnt about the GPU's speed is for all of them.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobile_sam.checkpoints import cache_directory
from mobile_sam.files import sync
from mobile_sam.quoting import first_line

if TYPE_CHECKING:
    import onnxruntime

OBJECTS = 16
"""Objects at once, at most. TensorRT keeps the memory that this many take, be there fewer."""
POINTS = 16
"""Points of a prompt, at most, beside its box."""
BOX = 2
"""Corners that it counts as; the filler after points without a box is one."""

# Of each free size the least, the most usual and the most.
_ONE, _OBJECTS, _TOKENS = (1, 1, 1), (1, 8, OBJECTS), (1, BOX, POINTS + BOX)
_FREE = {
    "points": (_OBJECTS, _TOKENS),
    "labels": (_OBJECTS, _TOKENS),
    "mask_logits": (_OBJECTS,),
    "has_mask": (_OBJECTS,),
}  # others have `_ONE`: one picture, and one row and column of the masks that nobody asks for
_CHUNK_BYTES = 2**20
_LOGGER = logging.getLogger(__name__)

Options = dict[str, Any]
"""Of ONNX Runtime's TensorRT, by their names."""


def profile(inputs: Sequence[onnxruntime.NodeArg]) -> Options:
    """Returns for which sizes of a file's inputs its engine is to be built.

    Without it, ONNX Runtime would build one for the first sizes that come, and another one in the
    middle of the work whenever others do.
    """
    shapes: dict[str, list[str]] = {"min": [], "opt": [], "max": []}
    for tensor in inputs:
        if all(isinstance(size, int) for size in tensor.shape):
            continue
        free = iter(_FREE.get(tensor.name, ()))
        ranges = [(s,) * 3 if isinstance(s, int) else next(free, _ONE) for s in tensor.shape]
        for kind, sizes in zip(shapes, zip(*ranges, strict=True), strict=True):
            shapes[kind].append(f"{tensor.name}:{'x'.join(map(str, sizes))}")
    return {f"trt_profile_{kind}_shapes": ",".join(of_all) for kind, of_all in shapes.items()}


def open_with_engines(
    file: Path,
    inputs: Sequence[onnxruntime.NodeArg],
    open_with: Callable[[Options], onnxruntime.InferenceSession],
) -> onnxruntime.InferenceSession:
    """Opens a file of an export, for which engines are built if there are none.

    Args:
        file: the ONNX file.
        inputs: of it.
        open_with: opens it with such options; its errors are those of this function.
    """
    engines = _Engines(file)
    sizes, begin = profile(inputs), time.monotonic()
    is_new = not engines.are_whole()
    if is_new:
        engines.remove()  # of a build that was cut short, an empty file may crash who reads it
        _LOGGER.warning("%s: TensorRT builds an engine for it, once, which takes minutes", file)
    try:
        session = open_with(engines.options() | sizes)
    except Exception as error:  # ONNX Runtime has no base class of its own
        if "from cache" in str(error) or "timing cache" in str(error):
            why = "what TensorRT kept of it is damaged, and built anew"
            engines.remove()
            engines.remove_timings()
        elif "shape profiles" in str(error):
            why = "TensorRT takes only parts of it, and builds more whenever larger prompts come"
            sizes = {}
        else:
            raise
        _LOGGER.warning("%s: %s: %s", file, why, first_line(error))
        is_new = True
        session = open_with(engines.options() | sizes)
    if is_new:
        engines.keep()
        _LOGGER.warning("%s: TensorRT is ready after %.0f s", file, time.monotonic() - begin)
    return session


class _Engines:
    """A file's engines, in the user's cache."""

    def __init__(self, file: Path) -> None:
        digest = hashlib.sha256()
        with file.open("rb") as content:
            while chunk := content.read(_CHUNK_BYTES):
                digest.update(chunk)
        self._shared = cache_directory() / "tensorrt"
        self._folder = self._shared / digest.hexdigest()[:16]
        self._whole = self._folder / "whole"  # is there if all others are on the disk

    def options(self) -> Options:
        """Returns the options by which ONNX Runtime keeps them, and makes the folder for them."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            _LOGGER.warning("%s: TensorRT's engine is not kept: %s", self._folder, error)
            return {}
        return {
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": str(self._folder),
            "trt_timing_cache_enable": True,
            "trt_timing_cache_path": str(self._shared),
        }

    def are_whole(self) -> bool:
        return self._whole.is_file()

    def keep(self) -> None:
        """Waits until they are on the disk: a robot is switched off at any time."""
        try:
            for path in [*self._folder.iterdir(), self._folder]:
                sync(path)
            self._whole.touch()
        except OSError as error:
            _LOGGER.warning("%s: TensorRT's engine is not kept: %s", self._folder, error)

    def remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def remove_timings(self) -> None:
        """Removes what all files share."""
        for timing in self._shared.glob("*.timing"):
            timing.unlink(missing_ok=True)
