"""Runs a model with OpenVINO, on the CPU: the fastest way on one, of Intel, AMD or Arm."""

from __future__ import annotations

from threading import Lock

import numpy as np
import torch
from torch import Tensor, nn

from mobile_sam.backends import free_unused
from mobile_sam.backends.openvino_models import Model, compiled, precisions
from mobile_sam.backends.picture_encoders import Encode
from mobile_sam.backends.pytorch import TorchSam
from mobile_sam.modeling import ALL, Sam
from mobile_sam.modeling.picture_encoder import PictureEncoder
from mobile_sam.modeling.sam import NOTHING, normalised

_AT_ONCE = 2  # objects; the most memory that any call took, OpenVINO keeps


class OpenVinoSam(TorchSam):
    """A model that OpenVINO runs; takes and gives what `Sam` does.

    The encoder is compiled for each size of picture, in some seconds (`PictureEncoders` says when),
    the decoder once for any number of objects, with the first size. Until they are, PyTorch runs
    them. What was compiled is kept in the user's cache.
    """

    def __init__(self, sam: Sam, precision: str = "fp32", encode_padding: bool = False) -> None:
        """Takes a model in evaluation mode on the CPU; arguments as for `load_backend`.

        Raises:
            ValueError: a precision that the CPU does not have.
        """
        if precision not in precisions():
            raise ValueError(
                f"precision {precision!r} cannot be used by OpenVINO on this CPU, which has "
                + ", ".join(precisions())
            )
        super().__init__(sam, precision, encode_padding, self._compiled_encoder)
        self._precision = precision
        self._compiling_decoder = Lock()
        self._decoder: Model | None = None

    def _compiled_encoder(self, encoder: PictureEncoder) -> Encode:
        shape = (1, 3, *encoder.region_hw)
        examples = (torch.zeros(shape),)
        free_unused()  # what PyTorch took to see what lies below
        model = compiled(_Encoder(encoder).eval(), examples, [shape], self._precision)

        def encode(pixels: Tensor) -> Tensor:
            regions = normalised(pixels, encoder.region_hw).contiguous()
            cells = np.concatenate([model([one[None].numpy()])[0] for one in regions])
            return torch.from_numpy(cells).permute(0, 3, 1, 2)

        self._compile_decoder()
        free_unused()  # what preparing took
        return encode

    def _compile_decoder(self) -> None:
        with self._compiling_decoder:
            if self._decoder is not None:
                return
            dim, side = self.config.embedding_dim, self.config.embedding_size
            shapes: list[tuple[int, ...]] = [
                (1, side, side, dim),
                (-1, -1, dim),
                (-1, dim, -1, -1),
                (-1, -1),
                (-1,),
                (-1,),
            ]
            # Two objects, because tracing would take a size of 1 for one that never changes.
            tokens, prompt_map, _ = self.sam.embed_prompts(
                torch.zeros(2, 2, 2), torch.tensor([[2, 3], [1, -1]])
            )
            seen, two = self._all(tokens), torch.arange(2)
            examples = torch.zeros(shapes[0]), tokens, prompt_map, seen, two, two
            self._decoder = compiled(_Decoder(self.sam), examples, shapes, "fp32")

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
        model = self._decoder
        if model is None or len(embedding) > 1:
            return super().decode(embedding, points, labels, mask_logits, has_mask, masks, rows)
        tokens, prompt_map, seen = self.sam.embed_prompts(points, labels, mask_logits, has_mask)
        if seen is None:
            seen = self._all(tokens)
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

    def _all(self, tokens: Tensor) -> Tensor:
        """Returns a mask that says of all tokens that they count."""
        return torch.ones(len(tokens), self.sam.mask_decoder.own_tokens + tokens.shape[1]).bool()


class _Encoder(nn.Module):
    """The encoder, which leaves the channels last, as the decoder wants them."""

    def __init__(self, encoder: PictureEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pixels: Tensor) -> Tensor:
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
