"""The networks, as `torch.nn` modules."""

from mobile_sam.modeling.config import DEMO, MOBILE_SAM, SamConfig
from mobile_sam.modeling.prompt_encoder import PointLabel
from mobile_sam.modeling.sam import ALL, MULTI, SINGLE, Sam

__all__ = ["ALL", "DEMO", "MOBILE_SAM", "MULTI", "SINGLE", "PointLabel", "Sam", "SamConfig"]
