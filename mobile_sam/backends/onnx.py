"""Runs an ONNX export (`mobile_sam.export`) with ONNX Runtime, on the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mobile_sam.checkpoints import WeightsError
from mobile_sam.export import DECODER_FILE, ENCODER_FILE
from mobile_sam.modeling import ALL, SamConfig
from mobile_sam.modeling.sam import normalised

if TYPE_CHECKING:
    import onnxruntime


def _session(path: Path) -> onnxruntime.InferenceSession:
    try:
        import onnxruntime
    except ImportError as error:
        raise WeightsError(f"{path}: needs onnxruntime: pip install 'mobile_sam[onnx]'") from error
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; `mobile-sam export` writes it")
    try:
        return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has no base class of its own
        cause = str(error).strip().split("\n")[0]
        raise WeightsError(f"{path}: not a model that ONNX Runtime can read: {cause}") from error


class OnnxSam:
    """A model in the two files of an export; takes and gives what `Sam` does."""

    def __init__(self, directory: Path) -> None:
        """Loads the files.

        Raises:
            WeightsError: a file is missing, damaged, or not of this package's export.
        """
        self._encoder = _session(directory / ENCODER_FILE)
        self._decoder = _session(directory / DECODER_FILE)
        metadata = self._encoder.get_modelmeta().custom_metadata_map
        if metadata != self._decoder.get_modelmeta().custom_metadata_map:
            raise WeightsError(f"{directory}: {ENCODER_FILE} and {DECODER_FILE} differ in metadata")
        try:
            self.config = SamConfig.from_json(metadata["config"])
        except (KeyError, ValueError, json.JSONDecodeError) as error:
            raise WeightsError(
                f"{directory / ENCODER_FILE}: its metadata has no usable `config`: {error}"
            ) from error
        self.weights = metadata.get("weights", "")

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def encode(self, pixels: Tensor) -> Tensor:
        """See `Sam.encode`."""
        array = normalised(pixels, self.config.image_size).numpy()
        (embedding,) = self._encoder.run(["embedding"], {"pixels": array})
        return torch.from_numpy(embedding)

    def decode(
        self,
        embedding: Tensor,
        points: Tensor,
        labels: Tensor,
        mask_logits: Tensor | None = None,
        has_mask: Tensor | None = None,
        masks: slice = ALL,
    ) -> tuple[Tensor, Tensor]:
        """See `Sam.decode`; one embedding for all objects."""
        count, side = len(labels), self.config.mask_size
        if has_mask is None:
            has_mask = torch.full((count,), mask_logits is not None)
        if mask_logits is None:
            mask_logits = torch.zeros(count, 1, side, side)
        one_pixel = np.zeros(1, np.float32)  # masks of the image's size are made elsewhere
        logits, iou = self._decoder.run(
            ["logits", "predicted_iou"],
            {
                "embedding": embedding.numpy(),
                "points": points.numpy(),
                "labels": labels.numpy(),
                "mask_logits": mask_logits.numpy(),
                "has_mask": has_mask.numpy(),
                "rows": one_pixel,
                "columns": one_pixel,
            },
        )
        return torch.from_numpy(logits)[:, masks], torch.from_numpy(iou)[:, masks]
