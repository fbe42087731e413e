"""One encoder for each size of picture: a camera's pictures all have the same."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Protocol

import torch
from torch import Tensor

from mobile_sam.modeling import Sam
from mobile_sam.modeling.picture_encoder import PictureEncoder, region_size

MARGIN_CELLS = 2
"""Cells of padding that are encoded along with a picture; what it costs and what it saves is in
docs/performance.md."""
_KEPT = 8  # sizes, as many as there may be cameras in one process
_PLAIN = 2  # pictures of a size that are not worth a compilation

Encode = Callable[[Tensor], Tensor]


class Compiler(Protocol):
    """Makes encoders that run faster than PyTorch's."""

    def read(self, picture_hw: tuple[int, int], region_hw: tuple[int, int]) -> Encode | None:
        """Returns what was compiled before for pictures of a size (height, width), in tenths of a
        second, None if it was not; `region_hw` is that of their `PictureEncoder`."""

    def compile(self, picture_hw: tuple[int, int], encoder: PictureEncoder) -> Encode | None:
        """Compiles an encoder for pictures of a size, in seconds; None if it is to be as it is."""


@dataclass
class _Entry:
    picture_hw: tuple[int, int]
    encode: Encode
    encoder: PictureEncoder | None  # that is not compiled yet
    pictures: int = 0


class PictureEncoders:
    """Encodes pictures as `Sam.encode` does, by an encoder that is made for their size.

    The first two of a size are encoded by PyTorch, and only the third has the encoder compiled,
    where there is something to compile, and it was not before: a folder of photographs would wait
    for nothing else. While one thread compiles, another goes on with PyTorch.
    """

    def __init__(
        self,
        sam: Sam,
        encode_padding: bool,
        plain: Callable[[PictureEncoder], Encode],
        compiler: Compiler | None = None,
    ) -> None:
        """Makes nothing yet.

        Args:
            sam: in evaluation mode.
            encode_padding: whether to encode all of the padding, as SAM does, at its full cost.
            plain: makes of an encoder what runs it on pixels as `Sam.encode` takes them, at once.
            compiler: makes what runs faster.
        """
        self._sam, self._encode_padding = sam, encode_padding
        self._plain, self._compiler = plain, compiler
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
        if self._compiler is not None:
            # An encoder of PyTorch takes a second to make, and its first picture much memory.
            encode = self._compiler.read(picture_hw, region_size(config, height, margin))
            if encode is not None:
                return _Entry(picture_hw, encode, None)
        encoder = PictureEncoder(self._sam.image_encoder, config, height, margin).eval()
        return _Entry(picture_hw, self._plain(encoder), encoder)

    @torch.inference_mode(False)
    @torch.no_grad()
    def _compile(self, entry: _Entry) -> None:
        if self._compiler is None:
            return
        with self._lock:
            encoder, entry.encoder = entry.encoder, None
        if encoder is None:
            return
        try:
            compiled = self._compiler.compile(entry.picture_hw, encoder)
        except BaseException:
            entry.encoder = encoder  # the next one tries again, and is not told that it is ready
            raise
        entry.encode = compiled or entry.encode
