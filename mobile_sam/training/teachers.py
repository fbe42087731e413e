"""What a student learns from: SAM's image encoders, or those of this package.

SAM's come from timm (`timm.models.vision_transformer_sam`), with the official checkpoints of
github.com/facebookresearch/segment-anything.
"""

from __future__ import annotations

import pickle
import textwrap
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import timm
import torch
from timm.models.vision_transformer_sam import checkpoint_filter_fn
from torch import Tensor, nn

from mobile_sam.checkpoints import WeightsError, load_sam
from mobile_sam.modeling.sam import normalised

# By the names of SAM's own registry.
_SAM_ENCODERS = {
    "vit_b": "samvit_base_patch16",
    "vit_l": "samvit_large_patch16",
    "vit_h": "samvit_huge_patch16",
}


@dataclass(frozen=True, eq=False)
class Teacher:
    """An image encoder with fixed weights.

    Attributes:
        name: as it was asked for.
        image_size: side of its square input, in pixels.
        encoder: normalised pixels, float (B, 3, S, S), to the embedding, float (B, C, e, e).
    """

    name: str
    image_size: int
    encoder: nn.Module

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Tensor:
        """Encodes pictures scaled to fit: (B, 3, H, W), RGB, 0 to 255, to float (B, C, e, e)."""
        return self.encoder(normalised(pixels, (self.image_size, self.image_size)))


def load_teacher(name: str, device: str = "cpu") -> Teacher:
    """Loads a teacher.

    Args:
        name: `vit_b=PATH`, `vit_l=PATH` or `vit_h=PATH` for an official checkpoint of SAM; else
            weights of this package, as `load_sam` takes them.
        device: where torch shall have it.

    Raises:
        WeightsError: the file is missing, damaged or of another architecture.
    """
    kind, _, path = name.partition("=")
    if kind in _SAM_ENCODERS and path:
        encoder = _load_sam_encoder(_SAM_ENCODERS[kind], Path(path).expanduser())
        return Teacher(name, 1024, encoder.to(device))
    sam = load_sam(name, device)
    return Teacher(name, sam.config.image_size, sam.image_encoder)


def _load_sam_encoder(model_name: str, path: Path) -> nn.Module:
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        # SAM's own epsilon; timm's default is another.
        norm = partial(nn.LayerNorm, eps=1e-6)
        with torch.device("meta"):  # no random weights first: ViT-H has 637 million
            encoder = timm.create_model(model_name, num_classes=0, norm_layer=norm)
        encoder.head = nn.Identity()  # pools otherwise
        encoder.load_state_dict(checkpoint_filter_fn(state, encoder), assign=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, AttributeError) as error:
        cause = textwrap.shorten(str(error), 200, placeholder=" …")
        raise WeightsError(f"{path}: not a checkpoint of SAM's {model_name}: {cause}") from error
    return encoder.eval().requires_grad_(False)
