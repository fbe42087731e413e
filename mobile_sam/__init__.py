"""MobileSAM as a library: encode an image once, segment whatever is pointed at. No ROS in here.

What needs torch is imported when it is first used: the procedural scenes do without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mobile_sam.checkpoints import WEIGHTS, WeightsError, load_sam
    from mobile_sam.predictor import Embedding, Predictor
    from mobile_sam.prompts import Prompt
    from mobile_sam.segments import Segments

_MODULES = {
    "WEIGHTS": "checkpoints",
    "WeightsError": "checkpoints",
    "load_sam": "checkpoints",
    "Embedding": "predictor",
    "Predictor": "predictor",
    "Segments": "segments",
    "Prompt": "prompts",
}
__all__ = ["WEIGHTS", "Embedding", "Predictor", "Prompt", "Segments", "WeightsError", "load_sam"]


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return getattr(import_module(f"mobile_sam.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'mobile_sam' has no attribute {name!r}")
