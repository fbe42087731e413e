"""What an object is called, and where it stands if it is followed."""

from __future__ import annotations

from dataclasses import dataclass

import mobile_sam
from mobile_sam.tracking import TrackedObject


@dataclass(frozen=True)
class Identity:
    """What an object is called, carried from its detection or prompt to the outputs.

    track: where it stands; None if it is not followed.
    """

    id: str
    class_id: str = ""
    score: float = 1.0
    track: TrackedObject | None = None


Shown = tuple[mobile_sam.Prompt, Identity]
"""An object as it is pointed at, and what it is called."""
