"""One encoder for each size of picture: a camera's pictures all have the same."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

import torch
from torch import Tensor

from mobile_sam.modeling import Sam
from mobile_sam.modeling.picture_encoder import PictureEncoder

MARGIN_CELLS = 2
"""Cells of padding that are encoded along with a picture; what it costs and what it saves is in
docs/performance.md."""
_KEPT = 8  # sizes, as many as there may be cameras in one process
_PLAIN = 2  # pictures of a size that are not worth a compilation

Encode = Callable[[Tensor], Tensor]


@dataclass
class _Entry:
    encoder: PictureEncoder
    encode: Encode
    pictures: int = 0
    is_begun: bool = False  # its compilation


class PictureEncoders:
    """Encodes pictures as `Sam.encode` does, by an encoder that is made for their size.

    The first two of a size are encoded by PyTorch, and only the third has the encoder compiled,
    where there is something to compile: a folder of photographs would wait for nothing else. While
    one thread prepares, another goes on with PyTorch.
    """

    def __init__(
        self,
        sam: Sam,
        encode_padding: bool,
        plain: Callable[[PictureEncoder], Encode],
        compiled: Callable[[PictureEncoder], Encode] | None = None,
    ) -> None:
        """Makes nothing yet.

        Args:
            sam: in evaluation mode.
            encode_padding: whether to encode all of the padding, as SAM does, at its full cost.
            plain: makes of an encoder what runs it on pixels as `Sam.encode` takes them, at once.
            compiled: the same, in seconds, for what runs faster.
        """
        self._sam, self._encode_padding = sam, encode_padding
        self._plain, self._compiled = plain, compiled
        self._known: OrderedDict[tuple[int, int], _Entry] = OrderedDict()
        self._lock = Lock()  # of the entries; not held while one is compiled

    def encode(self, pixels: Tensor) -> Tensor:
        """See `Sam.encode`."""
        height, width = pixels.shape[-2:]
        entry = self._entry((height, width))
        if entry.pictures >= _PLAIN:
            self._compile(entry)
        entry.pictures += 1
        return entry.encode(pixels)

    def prepare(self, picture_hw: tuple[int, int]) -> None:
        """Compiles for pictures of a size at once."""
        self._compile(self._entry(picture_hw))

    @torch.inference_mode(False)
    @torch.no_grad()
    def _entry(self, picture_hw: tuple[int, int]) -> _Entry:
        with self._lock:
            if picture_hw not in self._known:
                self._known[picture_hw] = self._made(picture_hw)
                if len(self._known) > _KEPT:
                    self._known.popitem(last=False)
            self._known.move_to_end(picture_hw)
            return self._known[picture_hw]

    def _made(self, picture_hw: tuple[int, int]) -> _Entry:
        config = self._sam.config
        height, width = picture_hw
        if self._encode_padding or height > width:
            height = config.image_size
        margin = MARGIN_CELLS * config.stride
        encoder = PictureEncoder(self._sam.image_encoder, config, height, margin).eval()
        return _Entry(encoder, self._plain(encoder))

    @torch.inference_mode(False)
    @torch.no_grad()
    def _compile(self, entry: _Entry) -> None:
        with self._lock:
            if self._compiled is None or entry.is_begun:
                return
            entry.is_begun = True
        entry.encode = self._compiled(entry.encoder)
