"""One object that is followed: what is known of it after an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mobile_sam.tracking.appearance import Colours, Template
from mobile_sam.tracking.memory import Memory
from mobile_sam.tracking.motion import Motion, times

_LOST_AFTER = 5  # images without it
_EXTRAPOLATED = 8  # images, at most, for which an object that is not seen moves on
_FIRST_NOISE = 10.0


class TrackState(Enum):
    """Whether an object is seen."""

    ACTIVE = "active"
    OCCLUDED = "occluded"
    """Not seen for a few images: something is in front of it, or it looks otherwise."""
    LOST = "lost"
    """Not seen for longer. It is looked for, and becomes active when it is found."""


@dataclass(frozen=True)
class TrackedObject:
    """Where a track stands after an image.

    Attributes:
        id: as it was started.
        state: whether it is seen.
        age: images since it was started.
        unseen: images since it was seen last.
        confidence: 0 to 1, how well its mask agrees with how it moved and what it looks like; 0 if
            it is not seen.
    """

    id: str
    state: TrackState
    age: int
    unseen: int
    confidence: float


@dataclass(eq=False)
class Track:
    """What is known of an object after an image."""

    id: str
    template: Template
    colours: Colours
    area: float
    mask: NDArray[np.bool_] | None  # in the last image; None: not seen
    logits: Tensor  # of that mask, (m, m)
    predicted_iou: float
    seconds: float  # when it was seen last
    motion: Motion  # in `interval` seconds
    memory: Memory | None = None  # None: another thing, that nobody asked for
    interval: float = 0.0
    noise: float = _FIRST_NOISE
    age: int = 0
    unseen: int = 0
    confidence: float = 1.0
    is_touched: bool = False  # by something that is followed, when it was seen last

    @property
    def state(self) -> TrackState:
        """Whether it is seen."""
        if not self.unseen:
            return TrackState.ACTIVE
        return TrackState.OCCLUDED if self.unseen < _LOST_AFTER else TrackState.LOST

    def expected(self, seconds: float) -> Motion:
        """Returns the motion from the template to an image at that time."""
        elapsed = seconds - self.seconds
        if self.interval <= 0 or elapsed <= 0:
            return self.motion
        factor = min(elapsed / self.interval, _EXTRAPOLATED)
        return times(self.motion, factor, self.template.centre)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Returns all of it as arrays by names, of which `from_arrays` makes the same track.

        They are copies: what is learnt later does not change them.
        """
        parts = {"template": vars(self.template), "colours": vars(self.colours)}
        if self.memory is not None:
            parts["memory"] = {n: tensor.cpu().numpy() for n, tensor in vars(self.memory).items()}
        values = {n: v for n, v in vars(self).items() if n not in (*parts, "memory")}
        values["logits"] = self.logits.numpy()
        for part, of_part in parts.items():
            values |= {f"{part}.{name}": value for name, value in of_part.items()}
        return {name: np.array(value) for name, value in values.items() if value is not None}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Track:
        """Returns the track that such arrays were made of, which may be made of them again."""
        values: dict[str, Any] = {
            name: array.copy() if array.ndim else array.item() for name, array in arrays.items()
        }

        def take(part: str) -> dict[str, Any]:
            names = [name for name in values if name.startswith(f"{part}.")]
            return {name.removeprefix(f"{part}."): values.pop(name) for name in names}

        template, colours = Template(**take("template")), Colours.restored(take("colours"))
        seen = {name: torch.from_numpy(array) for name, array in take("memory").items()}
        values["memory"] = Memory(**seen) if seen else None
        values["logits"] = torch.from_numpy(values["logits"])
        return cls(template=template, colours=colours, **({"mask": None} | values))
