"""What can run a model: PyTorch, or ONNX Runtime for exported ones. One small protocol."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from mobile_sam.checkpoints import load_sam
from mobile_sam.modeling import ALL, SamConfig


class Backend(Protocol):
    """A model that runs. `Sam` itself is one; shapes and coordinates are those of its methods."""

    config: SamConfig

    @property
    def device(self) -> torch.device:
        """Where arguments have to be, and results are."""

    def encode(self, pixels: Tensor) -> Tensor:
        """See `Sam.encode`."""

    def decode(
        self,
        embedding: Tensor,
        points: Tensor,
        labels: Tensor,
        mask_logits: Tensor | None = None,
        has_mask: Tensor | None = None,
        masks: slice = ALL,
    ) -> tuple[Tensor, Tensor]:
        """See `Sam.decode`."""


def load_backend(weights: str | os.PathLike[str] = "demo", device: str = "auto") -> Backend:
    """Loads a model by name or path.

    Args:
        weights: as `load_sam` takes it, or the directory of an ONNX export (`export_onnx`).
        device: a torch device, or "auto": the first GPU if there is one, else the CPU. An ONNX
            export runs on the CPU.

    Raises:
        WeightsError: the weights cannot be had or used.
        ValueError: the device is not known, or not there.
    """
    if Path(weights).expanduser().is_dir():
        from mobile_sam.backends.onnx import OnnxSam

        if device not in ("auto", "cpu"):
            raise ValueError(f"device {device!r} cannot be used: an ONNX export runs on the CPU")
        return OnnxSam(Path(weights).expanduser())
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        cause = str(error).split("\n")[0]
        raise ValueError(f"device {device!r} cannot be used: {cause}") from error
    return load_sam(weights, device)
