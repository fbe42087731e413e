"""The models that a process has loaded: one copy of the weights for all its cameras."""

from __future__ import annotations

from weakref import WeakValueDictionary

import mobile_sam
from mobile_sam_ros.parameters import Parameters


class Models:
    """Loads models; whoever asks for the same again while it is in use gets the same one."""

    def __init__(self) -> None:
        self._loaded: WeakValueDictionary[tuple, mobile_sam.Predictor] = WeakValueDictionary()

    def load(self, values: Parameters) -> mobile_sam.Predictor:
        """Loads what the parameters say; errors are those of `Predictor.from_weights`."""
        key = (
            values.weights,
            values.device,
            values.backend,
            values.precision,
            values.encode_padding,
        )
        found = self._loaded.get(key)
        if found is None:
            found = self._loaded[key] = mobile_sam.Predictor.from_weights(*key)
        return found
