"""Sizes of a model, as plain data: what a checkpoint has to say about itself to be rebuilt."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass

from mobile_sam.quoting import quoted

# Of what a file may ask for, which is built before it is known whether the file has the weights for
# it. SAM's largest encoder, ViT-H, has 32 blocks of 1280 channels.
_MOST = {
    "image_size": 4096,
    "encoder_dims": 4096,
    "encoder_depths": 32,
    "encoder_heads": 64,
    "encoder_windows": 32,
    "encoder_strides": 2,
    "embedding_dim": 4096,
    "decoder_depth": 32,
    "decoder_heads": 64,
    "decoder_mlp_dim": 16384,
    "mask_prompt_dim": 1024,
    "multimasks": 16,
    "iou_head_depth": 16,
    "iou_head_dim": 4096,
}
_MOST_STAGES = 8


@dataclass(frozen=True)
class SamConfig:
    """Architecture of one model.

    The defaults are MobileSAM's (Zhang et al. 2023, arXiv:2306.14289, section 4; the encoder is
    TinyViT-5M of Wu et al. 2022, arXiv:2207.10666, with its last downsampling at stride 1).
    """

    image_size: int = 1024
    """Side of the square that an image is scaled into and padded to, in pixels."""
    encoder_dims: tuple[int, ...] = (64, 128, 160, 320)
    """Channels of the encoder's stages; the first is convolutional, the others attend."""
    encoder_depths: tuple[int, ...] = (2, 2, 6, 2)
    """Blocks of each stage."""
    encoder_heads: tuple[int, ...] = (2, 4, 5, 10)
    """Attention heads of each stage; the first is not used."""
    encoder_windows: tuple[int, ...] = (7, 7, 14, 7)
    """Side of the attention windows of each stage, in cells; the first is not used."""
    encoder_strides: tuple[int, ...] = (2, 2, 1)
    """Strides of the downsamplings between the stages; the patch embedding before has 4."""
    embedding_dim: int = 256
    """Channels of image embedding, prompt tokens and decoder."""
    position_scale: float = 1.0
    """Standard deviation of the random frequencies that positions are embedded with; only a model
    without weights asks for it."""
    decoder_depth: int = 2
    decoder_heads: int = 8
    decoder_mlp_dim: int = 2048
    mask_prompt_dim: int = 16
    """Channels between the two convolutions that embed a mask prompt."""
    multimasks: int = 3
    """Masks for an ambiguous prompt; the decoder has one more, for a clear one."""
    iou_head_depth: int = 3
    iou_head_dim: int = 256

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            value = getattr(self, name)
            numbers = value if name.startswith("encoder_") else (value,)
            if not (
                isinstance(numbers, tuple)
                and 0 < len(numbers) <= _MOST_STAGES
                and all(type(number) is int and 1 <= number <= most for number in numbers)
            ):
                raise ValueError(f"{name} is {quoted(value)}, not from 1 to {most}")
        if not (isinstance(self.position_scale, (int, float)) and 0 < self.position_scale < 1e3):
            raise ValueError(f"position_scale is {quoted(self.position_scale)}")
        stages = len(self.encoder_dims)
        lengths = {
            "encoder_depths": stages,
            "encoder_heads": stages,
            "encoder_windows": stages,
            "encoder_strides": stages - 1,
        }
        for name, length in lengths.items():
            if len(getattr(self, name)) != length:
                raise ValueError(f"{name} has {len(getattr(self, name))} entries, not {length}")
        if self.image_size % self.stride:
            raise ValueError(f"image_size {self.image_size} is no multiple of {self.stride}")
        pairs = [*zip(self.encoder_dims, self.encoder_heads, strict=True)][1:]
        for dim, heads in [*pairs, (self.embedding_dim // 2, self.decoder_heads)]:
            if dim % heads:
                raise ValueError(f"{dim} channels cannot be divided among {heads} heads")

    @property
    def stride(self) -> int:
        """Pixels of the input to one cell of the image embedding."""
        return 4 * math.prod(self.encoder_strides)

    @property
    def embedding_size(self) -> int:
        """Side of the image embedding of a whole input, in cells."""
        return self.image_size // self.stride

    @property
    def mask_size(self) -> int:
        """Side of the low-resolution logits, in cells: four to a cell of the embedding."""
        return 4 * self.embedding_size

    def to_json(self) -> str:
        """Returns all fields as a JSON object."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> SamConfig:
        """Reads what `to_json` wrote.

        Raises:
            ValueError: it is not JSON, or has a field or a value that no model has.
        """
        try:
            fields = json.loads(text)
        except RecursionError:
            raise ValueError("the model's configuration is nested too deeply") from None
        if not isinstance(fields, dict):
            raise ValueError(f"the model's configuration is {quoted(fields)}, no table")
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(fields) - known)
        if unknown:
            raise ValueError(f"unknown field {quoted(unknown[0])} in the model's configuration")
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        return cls(**values)  # type: ignore[arg-type]


MOBILE_SAM = SamConfig()

# Finer cells (stride 8 for 16) on a smaller picture: at 256 pixels, that is what keeps the
# outline of a small object. And higher frequencies: those of SAM blur a box by a twelfth of the
# picture, which training has to undo.
DEMO = SamConfig(
    image_size=256,
    encoder_dims=(32, 64, 96, 128),
    encoder_depths=(2, 2, 4, 2),
    encoder_heads=(1, 2, 3, 4),
    encoder_windows=(8, 8, 16, 8),
    encoder_strides=(2, 1, 1),
    embedding_dim=128,
    position_scale=2.5,
    decoder_depth=2,
    decoder_heads=4,
    decoder_mlp_dim=512,
    iou_head_dim=128,
)
