"""One encoder for each size of picture: a camera's pictures all have the same."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor

from mobile_sam.modeling import Sam
from mobile_sam.modeling.picture_encoder import PictureEncoder
from mobile_sam.modeling.sam import normalised

MARGIN_CELLS = 2
"""Cells of padding that are encoded along with a picture; what it costs and what it saves is in
docs/performance.md."""
_KEPT = 8  # sizes, as many as there may be cameras in one process

Encode = Callable[[Tensor], Tensor]


class PictureEncoders:
    """Encodes pictures as `Sam.encode` does, by an encoder that is made for their size."""

    def __init__(
        self, sam: Sam, encode_padding: bool, prepared: Callable[[PictureEncoder], Encode]
    ) -> None:
        """Makes nothing yet.

        Args:
            sam: in evaluation mode.
            encode_padding: whether to encode all of the padding, as SAM does, at its full cost.
            prepared: makes of an encoder what runs it.
        """
        self._sam, self._encode_padding, self._prepared = sam, encode_padding, prepared
        self._known: OrderedDict[tuple[int, int], tuple[tuple[int, int], Encode]] = OrderedDict()

    def encode(self, pixels: Tensor) -> Tensor:
        """See `Sam.encode`."""
        height, width = pixels.shape[-2:]
        side = self._sam.config.image_size
        picture_hw = (side, side) if self._encode_padding else (height, width)
        if picture_hw not in self._known:
            self._known[picture_hw] = self._made(picture_hw)
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(picture_hw)
        region_hw, encode = self._known[picture_hw]
        return encode(normalised(pixels, region_hw))

    @torch.inference_mode(False)
    @torch.no_grad()
    def _made(self, picture_hw: tuple[int, int]) -> tuple[tuple[int, int], Encode]:
        config = self._sam.config
        margin = MARGIN_CELLS * config.stride
        encoder = PictureEncoder(self._sam.image_encoder, config, picture_hw, margin).eval()
        return encoder.region_hw, self._prepared(encoder)
