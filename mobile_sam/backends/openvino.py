"""Runs a model with OpenVINO, on the CPU: the fastest way on one, of Intel, AMD or Arm."""

from __future__ import annotations

import logging
from threading import Lock

import numpy as np
import torch
from torch import Tensor, nn

from mobile_sam.backends import free_unused
from mobile_sam.backends.openvino_models import Model, Recipe, precisions
from mobile_sam.backends.picture_encoders import Encode
from mobile_sam.backends.pytorch import TorchSam
from mobile_sam.modeling import ALL, Sam
from mobile_sam.modeling.picture_encoder import PictureEncoder
from mobile_sam.modeling.sam import NOTHING, normalised
from mobile_sam.quoting import first_line

_LOGGER = logging.getLogger(__name__)
_AT_ONCE = 2  # objects; the most memory that any call took, OpenVINO keeps


class OpenVinoSam(TorchSam):
    """A model that OpenVINO runs; takes and gives what `Sam` does.

    The encoder is compiled for each size of picture, in some seconds (`PictureEncoders` says when),
    the decoder once for any number of objects, with the first size. Until they are, PyTorch runs
    them. What was compiled is kept in the user's cache.
    """

    def __init__(
        self,
        sam: Sam,
        precision: str = "fp32",
        encode_padding: bool = False,
        is_required: bool = True,
    ) -> None:
        """Takes a model in evaluation mode on the CPU.

        Args:
            sam: the model.
            precision: as for `load_backend`.
            encode_padding: as for `load_backend`.
            is_required: whether a compilation that fails is an error, a RuntimeError wherever it is
                done. Else that is only logged, and PyTorch goes on with pictures of that size.

        Raises:
            ValueError: a precision that the CPU does not have.
        """
        if precision not in precisions():
            raise ValueError(
                f"precision {precision!r} cannot be used by OpenVINO on this CPU, which has "
                + ", ".join(precisions())
            )
        self._compiler = _Compiler(sam, precision, is_required)
        super().__init__(sam, precision, encode_padding, self._compiler)

    def decode(
        self,
        embedding: Tensor,
        points: Tensor,
        labels: Tensor,
        mask_logits: Tensor | None = None,
        has_mask: Tensor | None = None,
        masks: slice = ALL,
        rows: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `Sam.decode`; always in fp32."""
        model = self._compiler.decoder
        if model is None or len(embedding) > 1:
            return super().decode(embedding, points, labels, mask_logits, has_mask, masks, rows)
        tokens, prompt_map, seen = self.sam.embed_prompts(points, labels, mask_logits, has_mask)
        if seen is None:
            seen = _all_seen(self.sam, tokens)
        cells = embedding.permute(0, 2, 3, 1).contiguous().numpy()
        which = np.arange(self.config.multimasks + 1)[masks]
        some = np.arange(self.config.embedding_size if rows is None else rows)
        count, side = len(labels), self.config.mask_size
        logits = np.full((count, len(which), side, side), NOTHING, np.float32)
        iou = np.empty((count, len(which)), np.float32)
        prompts = [tensor.numpy() for tensor in (tokens, prompt_map, seen)]
        # Nothing by torch in here: its threads spin on for a while, in the way of OpenVINO's.
        for first in range(0, count, _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            inputs = [array[part] if len(array) == count else array for array in prompts]
            results = model([cells, *inputs, which, some])
            logits[part, :, : results[0].shape[2]] = results[0]
            iou[part] = results[1]
        return torch.from_numpy(logits), torch.from_numpy(iou)


class _Compiler:
    """Makes encoders (`Compiler`), and with the first one the decoder."""

    def __init__(self, sam: Sam, precision: str, is_required: bool) -> None:
        self._sam, self._precision, self._is_required = sam, precision, is_required
        self._making_decoder = Lock()
        self.decoder: Model | None = None

    def read(self, picture_hw: tuple[int, int], region_hw: tuple[int, int]) -> Encode | None:
        model = self._encoder_recipe(picture_hw, region_hw).read()
        if model is None:
            return None
        with self._making_decoder:
            if self.decoder is None:
                self.decoder = self._decoder_recipe().read()
        free_unused()  # what reading took
        return None if self.decoder is None else _encode_with(model)

    def compile(self, picture_hw: tuple[int, int], encoder: PictureEncoder) -> Encode | None:
        try:
            return self._compiled(picture_hw, encoder)
        except RuntimeError as error:
            if self._is_required:
                raise
            text = "OpenVINO cannot compile for pictures of %d x %d, so PyTorch runs them: %s"
            _LOGGER.warning(text, *reversed(picture_hw), first_line(error))
            return None

    def _compiled(self, picture_hw: tuple[int, int], encoder: PictureEncoder) -> Encode:
        free_unused()  # what PyTorch took to see what lies below
        example = torch.zeros(1, *picture_hw, 3, dtype=torch.uint8)
        recipe = self._encoder_recipe(picture_hw, encoder.region_hw)
        # Another process, or one before that had no decoder, may have compiled it by now.
        model = recipe.read() or recipe.compile(_Encoder(encoder).eval(), (example,))
        with self._making_decoder:
            if self.decoder is None:
                recipe = self._decoder_recipe()
                self.decoder = recipe.read() or self._compiled_decoder(recipe)
        free_unused()  # what preparing took
        return _encode_with(model)

    def _encoder_recipe(self, picture_hw: tuple[int, int], region_hw: tuple[int, int]) -> Recipe:
        name, part = f"encoder of {region_hw}", self._sam.image_encoder
        return Recipe(name, self._sam.config, part, [(1, *picture_hw, 3)], self._precision)

    def _decoder_recipe(self) -> Recipe:
        dim, side = self._sam.config.embedding_dim, self._sam.config.embedding_size
        shapes: list[tuple[int, ...]] = [
            (1, side, side, dim),
            (-1, -1, dim),
            (-1, dim, -1, -1),
            (-1, -1),
            (-1,),
            (-1,),
        ]
        return Recipe("decoder", self._sam.config, _Decoder(self._sam), shapes, "fp32")

    def _compiled_decoder(self, recipe: Recipe) -> Model:
        dim, side = self._sam.config.embedding_dim, self._sam.config.embedding_size
        # Two objects, because tracing would take a size of 1 for one that never changes.
        tokens, prompt_map, _ = self._sam.embed_prompts(
            torch.zeros(2, 2, 2), torch.tensor([[2, 3], [1, -1]])
        )
        cells, two = torch.zeros(1, side, side, dim), torch.arange(2)
        examples = cells, tokens, prompt_map, _all_seen(self._sam, tokens), two, two
        return recipe.compile(_Decoder(self._sam), examples)


def _all_seen(sam: Sam, tokens: Tensor) -> Tensor:
    """Returns a mask that says of all tokens that they count."""
    return torch.ones(len(tokens), sam.mask_decoder.own_tokens + tokens.shape[1]).bool()


def _encode_with(model: Model) -> Encode:
    """Returns what runs a compiled encoder."""

    def encode(pixels: Tensor) -> Tensor:
        pictures = pixels.permute(0, 2, 3, 1).contiguous().numpy()
        cells = np.concatenate([model([one[None]])[0] for one in pictures])
        return torch.from_numpy(cells).permute(0, 3, 1, 2)

    return encode


class _Encoder(nn.Module):
    """The encoder, of bytes (B, H, W, 3); it leaves the channels last, as the decoder wants them.

    What normalises the pixels is compiled along with it: in PyTorch it takes several copies.
    """

    def __init__(self, encoder: PictureEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pictures: Tensor) -> Tensor:
        pixels = normalised(pictures.permute(0, 3, 1, 2), self.encoder.region_hw)
        return self.encoder(pixels).permute(0, 2, 3, 1)


class _Decoder(nn.Module):
    """The mask decoder, with the positions as a constant."""

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.decoder = sam.mask_decoder
        self.register_buffer("positions", sam.prompt_encoder.positions(), persistent=False)
        self.positions: Tensor

    def forward(
        self,
        cells: Tensor,
        tokens: Tensor,
        prompt_map: Tensor,
        seen: Tensor,
        masks: Tensor,
        rows: Tensor,
    ) -> tuple[Tensor, Tensor]:
        embedding = cells.permute(0, 3, 1, 2)
        # As many rows as there are numbers: a size may vary in a compiled graph.
        return self.decoder(
            embedding, self.positions, tokens, prompt_map, seen, masks, rows.shape[0]
        )
