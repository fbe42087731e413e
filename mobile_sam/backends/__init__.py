"""What can run a model: PyTorch, OpenVINO, or ONNX Runtime. One small protocol."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from mobile_sam.backends.pytorch import TorchSam
from mobile_sam.checkpoints import WEIGHTS, WeightsError, load_sam
from mobile_sam.choices import BACKENDS, DEFAULT_WEIGHTS, EXPORT_BACKENDS, PRECISIONS
from mobile_sam.modeling import ALL, SamConfig

_LOGGER = logging.getLogger(__name__)


class Backend(Protocol):
    """A model that runs. `Sam` itself is one; shapes and coordinates are those of its methods."""

    config: SamConfig

    @property
    def device(self) -> torch.device:
        """Where arguments have to be, and results are."""

    def encode(self, pixels: Tensor) -> Tensor:
        """See `Sam.encode`; of bytes."""

    def prepare(self, picture_hw: tuple[int, int]) -> None:
        """Makes what is slow at first ready for pictures of a size (height, width) at once."""

    def decode(
        self,
        embedding: Tensor,
        points: Tensor,
        labels: Tensor,
        mask_logits: Tensor | None = None,
        has_mask: Tensor | None = None,
        masks: slice = ALL,
        rows: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `Sam.decode`."""


def load_backend(
    weights: str | os.PathLike[str] = DEFAULT_WEIGHTS,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "auto",
    encode_padding: bool = False,
) -> Backend:
    """Loads a model by name or path.

    Args:
        weights: as `load_sam` takes it, or the directory of an ONNX export (`export_onnx`).
        device: a torch device, or "auto": the first GPU if there is one, else the CPU.
        backend: "torch"; "openvino", on the CPU; "onnx", for an export, on the CPU or "cuda";
            "tensorrt", for an export, through ONNX Runtime. "auto" takes what suits weights and
            device: on the CPU OpenVINO if it is installed and starts, else PyTorch.
        precision: of the image encoder: "fp32", "bf16", or "fp16" on a GPU; "auto" is fp32.
        encode_padding: whether to encode all of a picture's padding, exactly as SAM does, and
            not only what lies next to the picture (`PictureEncoder`). An ONNX export always does.

    Raises:
        WeightsError: the weights cannot be had or used.
        ValueError: backend, device or precision are not known, not there, or not to be combined.
    """
    for name, value, known in (
        ("backend", backend, BACKENDS),
        ("precision", precision, PRECISIONS),
    ):
        if value not in known:
            raise ValueError(f"{name} {value!r} is none of {', '.join(known)}")
    precision = "fp32" if precision == "auto" else precision
    # A name means the weights of that name, also beside a folder called like them.
    is_export = os.fspath(weights) not in WEIGHTS and Path(weights).expanduser().is_dir()
    if is_export or backend in EXPORT_BACKENDS:
        return _load_export(weights, device, backend, precision)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    _check_device(device)
    if backend == "openvino" and device != "cpu":
        raise ValueError(f"backend 'openvino' runs on the CPU, not on device {device!r}")
    sam = load_sam(weights, device)
    free_unused()  # what reading the weights took
    if backend == "openvino" or (backend == "auto" and device == "cpu"):
        try:
            from mobile_sam.backends.openvino import OpenVinoSam

            return OpenVinoSam(sam, precision, encode_padding, backend == "openvino")
        except ImportError as error:
            if backend == "openvino":
                raise ValueError(
                    f"backend 'openvino' cannot be used: {error}: pip install openvino"
                ) from error
        except RuntimeError as error:  # it is there, but does not start
            if backend == "openvino":
                raise ValueError(f"backend 'openvino' cannot be used: {error}") from error
            _LOGGER.warning("OpenVINO does not start, so PyTorch runs the model: %s", error)
    return TorchSam(sam, precision, encode_padding)


def device_memory(device: str) -> float | None:
    """Returns what torch has allocated on a GPU, in MB, None for other devices."""
    if not device.startswith("cuda"):
        return None
    return torch.cuda.memory_allocated(device) / 2**20


def free_unused() -> None:
    """Gives the memory of models that nobody uses any more back, that of a GPU as well."""
    gc.collect()  # backends and their encoders refer to each other
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc keeps what was freed until it is asked
        trim(0)


def _check_device(device: str) -> None:
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        cause = str(error).split("\n")[0]
        raise ValueError(f"device {device!r} cannot be used: {cause}") from error


def _load_export(
    weights: str | os.PathLike[str], device: str, backend: str, precision: str
) -> Backend:
    if backend not in ("auto", *EXPORT_BACKENDS):
        raise ValueError(f"backend {backend!r} takes no ONNX export, and {weights} is one")
    if precision != "fp32":
        raise ValueError(f"precision {precision!r} cannot be used: an ONNX export runs in fp32")
    directory = Path(weights).expanduser()
    if not directory.is_dir():
        raise WeightsError(
            f"{weights}: backend {backend!r} takes the directory of an ONNX export, which "
            "`mobile-sam export` writes"
        )
    from mobile_sam.backends.onnx import OnnxSam

    return OnnxSam(directory, device, tensorrt=backend == "tensorrt")
