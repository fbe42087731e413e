"""A model like SAM in all but its size, for what has nothing to do with good masks."""

from __future__ import annotations

from mobile_sam.modeling import SamConfig

SMALL = SamConfig(
    image_size=64,
    encoder_dims=(16, 24, 24, 32),
    encoder_depths=(1, 1, 1, 1),
    encoder_heads=(1, 1, 1, 2),
    encoder_windows=(4, 4, 4, 4),
    embedding_dim=32,
    decoder_heads=2,
    decoder_mlp_dim=32,
    iou_head_dim=32,
)
