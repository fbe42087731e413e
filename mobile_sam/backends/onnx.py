"""Runs an ONNX export (`mobile_sam.export`) with ONNX Runtime: on the CPU, on a GPU, or there
with TensorRT, which builds an engine once and keeps it in the user's cache."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mobile_sam.checkpoints import WeightsError, cache_directory
from mobile_sam.export import DECODER_FILE, ENCODER_FILE
from mobile_sam.modeling import ALL, SamConfig
from mobile_sam.modeling.sam import normalised, with_padding
from mobile_sam.quoting import first_line, quoted

if TYPE_CHECKING:
    import onnxruntime


def _providers(device: str, tensorrt: bool) -> list[Any]:
    """Returns what ONNX Runtime is to use, first of all and only.

    Raises:
        ValueError: it is not there.
    """
    import onnxruntime

    there = onnxruntime.get_available_providers()
    gpu = ["TensorrtExecutionProvider"] if tensorrt else []
    gpu += ["CUDAExecutionProvider"]
    if device == "auto" and not tensorrt:
        device = "cuda" if gpu[0] in there else "cpu"
    if device == "cpu" and not tensorrt:
        return ["CPUExecutionProvider"]
    if not (device == "auto" or device.startswith("cuda")):
        raise ValueError(f"device {device!r} cannot be used with an ONNX export")
    if gpu[0] not in there:
        raise ValueError(
            f"device {device!r} cannot be used: ONNX Runtime has no {gpu[0]}, only "
            + ", ".join(there)
        )
    number = {"device_id": int(device.partition(":")[2] or 0)}
    engines = {
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(cache_directory() / "tensorrt"),
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": str(cache_directory() / "tensorrt"),
    }
    return [(name, number | engines if "Tensorrt" in name else number) for name in gpu]


def _session(path: Path, device: str, tensorrt: bool) -> onnxruntime.InferenceSession:
    try:
        import onnxruntime
    except ImportError as error:
        raise WeightsError(f"{path}: needs onnxruntime: pip install 'mobile_sam[onnx]'") from error
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; `mobile-sam export` writes it")
    providers = _providers(device, tensorrt)
    try:
        session = onnxruntime.InferenceSession(path, providers=providers)
    except Exception as error:  # ONNX Runtime has no base class of its own
        raise WeightsError(
            f"{path}: not a model that ONNX Runtime can read: {first_line(error)}"
        ) from error
    wanted = providers[0] if isinstance(providers[0], str) else providers[0][0]
    if session.get_providers()[0] != wanted:  # it only logs why, and takes the CPU instead
        raise ValueError(f"device {device!r} cannot be used: ONNX Runtime could not start {wanted}")
    return session


class OnnxSam:
    """A model in the two files of an export; takes and gives what `Sam` does."""

    def __init__(self, directory: Path, device: str = "auto", tensorrt: bool = False) -> None:
        """Loads the files.

        Args:
            directory: of the export.
            device: "cpu", "cuda", "cuda:0" and so on, or "auto".
            tensorrt: whether TensorRT is to run it; the first time, it builds for minutes.

        Raises:
            WeightsError: a file is missing, damaged, or not of this package's export.
            ValueError: the device or TensorRT are not there.
        """
        self._encoder = _session(directory / ENCODER_FILE, device, tensorrt)
        self._decoder = _session(directory / DECODER_FILE, device, tensorrt)
        try:
            metadata = self._encoder.get_modelmeta().custom_metadata_map
            differs = metadata != self._decoder.get_modelmeta().custom_metadata_map
            self.config = SamConfig.from_json(metadata["config"])
            self._check(directory)
        except (KeyError, ValueError) as error:  # also of text that is none
            raise WeightsError(
                f"{directory / ENCODER_FILE}: its metadata has no usable `config`: "
                f"{first_line(error)}"
            ) from error
        if differs:
            raise WeightsError(f"{directory}: {ENCODER_FILE} and {DECODER_FILE} differ in metadata")
        self.weights = metadata.get("weights", "")

    def _check(self, directory: Path) -> None:
        """Holds the files against the configuration that they bring along.

        Raises:
            WeightsError: they have other inputs or outputs.
        """
        side, cells = self.config.image_size, self.config.embedding_size
        dim, mask = self.config.embedding_dim, self.config.mask_size
        for file, found, wanted in (
            (ENCODER_FILE, self._encoder.get_inputs(), {"pixels": (3, side, side)}),
            (ENCODER_FILE, self._encoder.get_outputs(), {"embedding": (dim, cells, cells)}),
            (
                DECODER_FILE,
                self._decoder.get_inputs(),
                {
                    "embedding": (dim, cells, cells),
                    "points": (2,),
                    "labels": (),
                    "mask_logits": (1, mask, mask),
                    "has_mask": (),
                    "rows": (),
                    "columns": (),
                },
            ),
        ):
            sizes = {tensor.name: tuple(tensor.shape) for tensor in found}
            for name, last in wanted.items():
                if name not in sizes or sizes[name][len(sizes[name]) - len(last) :] != last:
                    raise WeightsError(
                        f"{directory / file}: has {name} of shape {quoted(sizes.get(name))}, which "
                        f"should end with {last}"
                    )

    @property
    def device(self) -> torch.device:
        """Where arguments and results are: the CPU, from where ONNX Runtime takes them itself."""
        return torch.device("cpu")

    def encode(self, pixels: Tensor) -> Tensor:
        """See `Sam.encode`."""
        side = self.config.image_size
        array = normalised(pixels, (side, side)).contiguous().numpy()
        (embedding,) = self._encoder.run(["embedding"], {"pixels": array})
        return torch.from_numpy(embedding)

    def prepare(self, picture_hw: tuple[int, int]) -> None:
        """See `Backend.prepare`: all sizes are padded to one."""

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
        if rows is not None:
            logits = logits[:, :, : rows * side // self.config.embedding_size]
        return with_padding(torch.from_numpy(logits)[:, masks]), torch.from_numpy(iou)[:, masks]
