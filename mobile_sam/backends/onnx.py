"""Runs an ONNX export (`mobile_sam.export`) with ONNX Runtime: on the CPU, on a GPU, or there
with TensorRT, whose engines are built once and kept in the user's cache."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mobile_sam.backends.tensorrt import BOX, OBJECTS, POINTS, open_with_engines
from mobile_sam.checkpoints import WeightsError
from mobile_sam.export import DECODER_FILE, ENCODER_FILE
from mobile_sam.modeling import ALL, PointLabel, SamConfig
from mobile_sam.modeling.sam import normalised, with_padding
from mobile_sam.quoting import first_line, quoted

if TYPE_CHECKING:
    import onnxruntime

_CPU, _CUDA, _TENSORRT = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "Tensorrt"))
_ALONE = {"enable_fallback": 0}  # else it goes on by itself with another one, at any time
_LOGGER = logging.getLogger(__name__)


def _sessions(
    directory: Path, device: str, tensorrt: bool
) -> tuple[onnxruntime.InferenceSession, onnxruntime.InferenceSession]:
    """Opens encoder and decoder of an export on one device."""
    try:
        import onnxruntime
    except ImportError as error:
        why = "needs onnxruntime: pip install onnxruntime"
        raise WeightsError(f"{directory}: {why}") from error
    is_free = device == "auto" and not tensorrt
    if is_free:
        device = "cuda" if _CUDA in onnxruntime.get_available_providers() else "cpu"
    files = directory / ENCODER_FILE, directory / DECODER_FILE
    try:
        encoder, decoder = (_session(file, device, tensorrt) for file in files)
    except ValueError as error:
        if not is_free or device == "cpu":
            raise
        _LOGGER.warning("%s, so the CPU runs the model", error)
        encoder, decoder = (_session(file, "cpu", tensorrt) for file in files)
    return encoder, decoder


def _session(path: Path, device: str, tensorrt: bool) -> onnxruntime.InferenceSession:
    """Opens a file on a device, and on no other.

    Raises:
        WeightsError: it is missing or damaged.
        ValueError: the device or TensorRT are not there, or do not start.
    """
    import onnxruntime

    if not path.is_file():
        raise WeightsError(f"{path}: no such file; `mobile-sam export` writes it")
    gpu = _gpu_options(device, tensorrt)
    settings = onnxruntime.SessionOptions()
    if gpu is not None:  # the CPU only says whether it is a model, and of which inputs
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        on_cpu = onnxruntime.InferenceSession(path, settings, providers=[_CPU], **_ALONE)
    except Exception as error:  # ONNX Runtime has no base class of its own
        raise WeightsError(
            f"{path}: not a model that ONNX Runtime can read: {first_line(error)}"
        ) from error
    if gpu is None:
        return on_cpu

    def opened(engines: dict[str, Any]) -> onnxruntime.InferenceSession:
        providers = [(_TENSORRT, gpu | engines)] if tensorrt else []
        providers += [(_CUDA, gpu)]
        return onnxruntime.InferenceSession(path, providers=providers, **_ALONE)

    wanted = _TENSORRT if tensorrt else _CUDA
    cause = f"device {device!r} cannot be used: ONNX Runtime could not start {wanted}"
    try:
        session = open_with_engines(path, on_cpu.get_inputs(), opened) if tensorrt else opened({})
    except Exception as error:
        raise ValueError(f"{cause}: {first_line(error)}") from error
    if session.get_providers()[0] != wanted:  # it only logs why, and takes the CPU all the same
        raise ValueError(cause)
    return session


def _gpu_options(device: str, tensorrt: bool) -> dict[str, Any] | None:
    """Returns which GPU ONNX Runtime is to use, as it takes it, or None for the CPU.

    Raises:
        ValueError: it has nothing that could.
    """
    import onnxruntime

    if device == "cpu" and not tensorrt:
        return None
    if not (device == "auto" or device.startswith("cuda")):
        raise ValueError(f"device {device!r} cannot be used with an ONNX export")
    there, wanted = onnxruntime.get_available_providers(), _TENSORRT if tensorrt else _CUDA
    if wanted not in there:
        raise ValueError(
            f"device {device!r} cannot be used: ONNX Runtime has no {wanted}, only "
            + ", ".join(there)
        )
    return {"device_id": int(device.partition(":")[2] or 0)}


class OnnxSam:
    """A model in the two files of an export; takes and gives what `Sam` does."""

    def __init__(self, directory: Path, device: str = "auto", tensorrt: bool = False) -> None:
        """Loads the files.

        Args:
            directory: of the export.
            device: "cpu", "cuda", "cuda:0" and so on, or "auto".
            tensorrt: whether TensorRT is to run it; the first time, it builds engines for minutes.

        Raises:
            WeightsError: a file is missing, damaged, or not of this package's export.
            ValueError: the device or TensorRT are not there.
        """
        self._encoder, self._decoder = _sessions(directory, device, tensorrt)
        self._is_tensorrt, self._has_run = tensorrt, False
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
        embeddings = [self._encoder.run(["embedding"], {"pixels": one[None]})[0] for one in array]
        return torch.from_numpy(np.concatenate(embeddings))

    def prepare(self, picture_hw: tuple[int, int]) -> None:
        """See `Backend.prepare`. All sizes are padded to one, so it runs both files once: a GPU
        loads much of what it needs with the first run."""
        if not self._has_run:
            picture = torch.zeros(1, 3, *picture_hw, dtype=torch.uint8)
            box = torch.tensor([[PointLabel.BOX_MINIMUM, PointLabel.BOX_MAXIMUM]])
            self.decode(self.encode(picture), torch.zeros(1, 2, 2), box)
            self._has_run = True

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
        """See `Sam.decode`; one embedding for all objects, of which some are decoded at once.

        Raises:
            ValueError: more points than TensorRT's engine takes.
        """
        count, side = len(labels), self.config.mask_size
        if not points.shape[1]:  # masks alone; TensorRT takes no size of 0
            points, labels = torch.zeros(count, 1, 2), torch.full((count, 1), PointLabel.NONE)
        if self._is_tensorrt and points.shape[1] > POINTS + BOX:
            raise ValueError(
                f"a prompt has more than {POINTS} points, which backend 'tensorrt' does not take"
            )
        if has_mask is None:
            has_mask = torch.full((count,), mask_logits is not None)
        one_pixel = np.zeros(1, np.float32)  # masks of the image's size are made elsewhere
        decoded = []
        for first in range(0, count, OBJECTS):
            part = slice(first, first + OBJECTS)
            some = len(labels[part])
            of_part = torch.zeros(some, 1, side, side) if mask_logits is None else mask_logits[part]
            decoded.append(
                self._decoder.run(
                    ["logits", "predicted_iou"],
                    {
                        "embedding": embedding.numpy(),
                        "points": points[part].numpy(),
                        "labels": labels[part].numpy(),
                        "mask_logits": of_part.numpy(),
                        "has_mask": has_mask[part].numpy(),
                        "rows": one_pixel,
                        "columns": one_pixel,
                    },
                )
            )
        logits, iou = (torch.from_numpy(np.concatenate(of)) for of in zip(*decoded, strict=True))
        if rows is not None:
            logits = logits[:, :, : rows * side // self.config.embedding_size]
        return with_padding(logits[:, masks]), iou[:, masks]
