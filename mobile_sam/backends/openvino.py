"""Runs a model with OpenVINO, on the CPU: the fastest way on one, of Intel, AMD or Arm."""

from __future__ import annotations

from functools import partial
from threading import Lock

import torch
from torch import Tensor, nn

from mobile_sam.backends.openvino_models import Model, compiled, precisions
from mobile_sam.backends.picture_encoders import Encode
from mobile_sam.backends.pytorch import TorchSam
from mobile_sam.modeling import ALL, Sam
from mobile_sam.modeling.picture_encoder import PictureEncoder
from mobile_sam.modeling.sam import normalised


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
        self._is_decoder_compiled = False

    def _compiled_encoder(self, encoder: PictureEncoder) -> Encode:
        shape = (1, 3, *encoder.region_hw)
        model = compiled(encoder, (torch.zeros(shape),), [shape], self._precision)

        def encode(pixels: Tensor) -> Tensor:
            regions = normalised(pixels, encoder.region_hw).contiguous()
            results = [model([one[None].numpy()])[0] for one in regions]
            return torch.cat([torch.from_numpy(result) for result in results])

        self._compile_decoder()
        return encode

    def _compile_decoder(self) -> None:
        with self._compiling_decoder:
            if self._is_decoder_compiled:
                return
            dim, side = self.config.embedding_dim, self.config.embedding_size
            shapes = [(1, dim, side, side), (-1, -1, dim), (-1, dim, -1, -1), (-1, -1)]
            # Two objects, because tracing would take a size of 1 for one that never changes.
            tokens, prompt_map, _ = self.sam.embed_prompts(
                torch.zeros(2, 2, 2), torch.tensor([[2, 3], [1, -1]])
            )
            examples = torch.zeros(shapes[0]), tokens, prompt_map, self._all(tokens)
            model = compiled(_Decoder(self.sam), examples, shapes, "fp32")
            self._decode_some = partial(self._decode_compiled, model)
            self._is_decoder_compiled = True

    def _decode_compiled(
        self,
        model: Model,
        embedding: Tensor,
        points: Tensor,
        labels: Tensor,
        mask_logits: Tensor | None = None,
        has_mask: Tensor | None = None,
        masks: slice = ALL,
    ) -> tuple[Tensor, Tensor]:
        if len(embedding) > 1:
            return self.sam.decode(embedding, points, labels, mask_logits, has_mask, masks)
        tokens, prompt_map, seen = self.sam.embed_prompts(points, labels, mask_logits, has_mask)
        inputs = embedding, tokens, prompt_map, self._all(tokens) if seen is None else seen
        results = model([tensor.numpy() for tensor in inputs])
        logits, iou = (torch.from_numpy(results[i])[:, masks] for i in range(2))
        return logits, iou

    def _all(self, tokens: Tensor) -> Tensor:
        """Returns a mask that says of all tokens that they count."""
        return torch.ones(len(tokens), self.sam.mask_decoder.own_tokens + tokens.shape[1]).bool()


class _Decoder(nn.Module):
    """The mask decoder, all of its masks, with the positions as a constant."""

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.decoder = sam.mask_decoder
        self.register_buffer("positions", sam.prompt_encoder.positions(), persistent=False)
        self.positions: Tensor

    def forward(
        self, embedding: Tensor, tokens: Tensor, prompt_map: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor]:
        return self.decoder(embedding, self.positions, tokens, prompt_map, seen)
