"""Runs a model with OpenVINO, on the CPU: the fastest way on one, of Intel, AMD or Arm."""

from __future__ import annotations

import warnings
from functools import lru_cache
from threading import Lock
from typing import Any

import openvino
import torch
from torch import Tensor

from mobile_sam.backends.picture_encoders import Encode
from mobile_sam.backends.pytorch import TorchSam
from mobile_sam.modeling import Sam
from mobile_sam.modeling.picture_encoder import PictureEncoder
from mobile_sam.modeling.sam import normalised

_COMPILING = Lock()
_PRECISIONS = {"fp32": openvino.Type.f32, "bf16": openvino.Type.bf16}


@lru_cache(maxsize=1)
def core() -> openvino.Core:
    """Returns OpenVINO's core, one for the process: with its last one it unloads its plugins, under
    the feet of their threads."""
    return openvino.Core()


def precisions() -> list[str]:
    """Returns the precisions that this CPU has."""
    abilities = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return [name for name in _PRECISIONS if name == "fp32" or name.upper() in abilities]


class OpenVinoSam(TorchSam):
    """A model of which OpenVINO runs the image encoder; takes and gives what `Sam` does.

    The encoder is compiled for each size of picture, in some seconds (`PictureEncoders` says when).
    The decoder stays PyTorch's: it is small, and its work changes with every call.
    """

    def __init__(self, sam: Sam, precision: str = "fp32", encode_padding: bool = False) -> None:
        """Takes a model in evaluation mode on the CPU; arguments as for `load_backend`.

        Raises:
            ValueError: a precision that the CPU does not have.
        """
        if precision not in precisions():
            raise ValueError(
                f"precision {precision!r} cannot be used by OpenVINO on this CPU, which has "
                + ", ".join(precisions())
            )
        super().__init__(
            sam, precision, encode_padding, lambda encoder: _compiled(encoder, precision)
        )


def _compiled(encoder: PictureEncoder, precision: str) -> Encode:
    """Returns what runs an encoder on pixels as `Sam.encode` takes them."""
    example = torch.zeros(1, 3, *encoder.region_hw)
    # One at a time: what Python warns of is the process's, and so is the tracing of a module.
    with _COMPILING, warnings.catch_warnings():
        # That tracing fixes all sizes, which is wanted here.
        warnings.simplefilter("ignore")
        model = openvino.convert_model(encoder, example_input=example, input=[example.shape])
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": _PRECISIONS[precision],
    }
    compiled = core().compile_model(model, "CPU", settings)

    def encode(pixels: Tensor) -> Tensor:
        regions = normalised(pixels, encoder.region_hw).contiguous()
        results = [compiled(one[None].numpy())[0] for one in regions]
        return torch.cat([torch.from_numpy(result) for result in results])

    return encode
