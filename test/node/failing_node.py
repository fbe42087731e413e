"""The node as it is, but with a backend that fails on images whose corner says so."""

from __future__ import annotations

import ctypes
import sys
import time
from typing import Any

from torch import Tensor

from mobile_sam import Predictor
from mobile_sam_ros import run
from mobile_sam_ros.models import Models
from mobile_sam_ros.parameters import Parameters

BROKEN, NO_MEMORY, SLOW = (255, 0, 0), (0, 255, 0), (0, 0, 255)
HANGING = (255, 255, 0)
CORNER = 24  # pixels of the image, enough to survive its scaling
SLOW_SECONDS = 1.5


class FailingBackend:
    """Passes everything on, unless the picture's first pixel is one of the colours above."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def encode(self, pixels: Tensor) -> Tensor:
        """See `Sam.encode`."""
        corner = tuple(int(value) for value in pixels[0, :, 0, 0])
        if corner == BROKEN:
            raise RuntimeError("device-side assert triggered")
        if corner == NO_MEMORY:
            raise MemoryError("DefaultCPUAllocator: can't allocate memory")
        if corner == SLOW:
            time.sleep(SLOW_SECONDS)
        if corner == HANGING:
            ctypes.PyDLL(None).sleep(600)  # with the interpreter's lock
        return self._backend.encode(pixels)


class FailingModels(Models):
    """Loads such backends."""

    def load(self, values: Parameters) -> Predictor:
        """See `Models.load`."""
        predictor = super().load(values)
        predictor.model = FailingBackend(predictor.model)
        return predictor


if __name__ == "__main__":
    run.Models = FailingModels  # type: ignore[misc]
    run.main(sys.argv)
