"""Writes a model as ONNX files, for ONNX Runtime, TensorRT and whatever else reads them.

A directory with two files. Sizes: S is the side of the input, C the channels of the embedding,
e = S / stride its side, m = 4 e the side of the low-resolution logits; B, N, T, H and W are free.

`encoder.onnx`, in and out:

- `pixels`, float32 (B, 3, S, S): RGB, normalised by the metadata's `pixel_mean` and `pixel_std`,
  the picture scaled to a longer side of S, zeros to its right and below it.
- `embedding`, float32 (B, C, e, e).

`decoder.onnx`, in:

- `embedding`, float32 (1, C, e, e).
- `points`, float32 (N, T, 2): x and y in pixels of the scaled picture.
- `labels`, int64 (N, T), of `PointLabel`: 0 background, 1 foreground, 2 and 3 a box's minimum and
  maximum, -1 the filler that every prompt without a box ends with, -2 no point.
- `mask_logits`, float32 (N, 1, m, m): mask prompts; zeros where `has_mask` is false.
- `has_mask`, bool (N,).
- `rows`, float32 (H,), and `columns`, float32 (W,): where `masks` is to be sampled, in pixels of
  the scaled picture. For an image of H rows, of which the scaled picture has h:
  (0.5 + arange(H)) * h / H - 0.5.

and out:

- `logits`, float32 (N, 4, m, m), and `predicted_iou`, float32 (N, 4): what `Sam.decode` returns.
- `masks`, float32 (N, H, W): logits of the mask that `choose_masks` chooses, at `rows` and
  `columns`: the object is where they are greater than 0.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mobile_sam.mask_choice import choose_masks
from mobile_sam.modeling import PointLabel, Sam
from mobile_sam.modeling.sam import PIXEL_MEAN, PIXEL_STD
from mobile_sam.postprocess import linear_weights

if TYPE_CHECKING:
    import onnx

OPSET = 18
_BEFORE_NORM = 2.0**-5
ENCODER_FILE = "encoder.onnx"
DECODER_FILE = "decoder.onnx"


class ExportError(Exception):
    """An export that cannot be made; the message says why."""


class _Decoder(nn.Module):
    """The decoder with the choice of the mask and its resizing, for any prompts in one graph."""

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.sam = sam

    def forward(
        self,
        embedding: Tensor,
        points: Tensor,
        labels: Tensor,
        mask_logits: Tensor,
        has_mask: Tensor,
        rows: Tensor,
        columns: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        logits, iou = self.sam.decode(embedding, points, labels, mask_logits, has_mask)
        is_point = (labels == PointLabel.BACKGROUND) | (labels == PointLabel.FOREGROUND)
        has_box = (labels == PointLabel.BOX_MINIMUM).any(dim=1)
        ambiguous = (is_point.sum(dim=1) == 1) & ~has_box & ~has_mask
        chosen = choose_masks(logits, iou, ambiguous)
        index = chosen.view(-1, 1, 1, 1).expand(-1, 1, *logits.shape[2:])
        one = logits.gather(1, index)[:, 0]
        config = self.sam.config
        cells_per_pixel = config.mask_size / config.image_size
        down, across = (
            linear_weights((positions + 0.5) * cells_per_pixel - 0.5, config.mask_size)
            for positions in (rows, columns)
        )
        return logits, iou, down @ one @ across.T


def export_onnx(sam: Sam, directory: Path, weights: str) -> list[Path]:
    """Writes `encoder.onnx` and `decoder.onnx`; returns their paths.

    Args:
        sam: the model, on the CPU.
        directory: where to; made if it is not there.
        weights: name or path of the weights, for the files' metadata.

    Raises:
        ExportError: a package that is needed is not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        missing = f"{error.name} is not installed: pip install onnx onnxruntime onnxscript"
        raise ExportError(missing) from error
    config = sam.config
    size, side, mask = config.image_size, config.embedding_size, config.mask_size
    directory.mkdir(parents=True, exist_ok=True)
    free = torch.export.Dim.DYNAMIC
    encoder_example = (torch.zeros(2, 3, size, size),)
    decoder_example = (
        torch.zeros(1, config.embedding_dim, side, side),
        torch.zeros(5, 3, 2),
        torch.tensor([[1, -1, -2], [2, 3, 1], [1, -1, -2], [2, 3, -2], [0, 1, -1]]),
        torch.zeros(5, 1, mask, mask),
        torch.tensor([False, True, False, True, True]),
        torch.arange(30.0),
        torch.arange(40.0),
    )
    prompts = [{0: free, 1: free}, {0: free, 1: free}, {0: free}, {0: free}]
    for file, module, example, shapes, inputs, outputs in (
        (
            ENCODER_FILE,
            sam.image_encoder,
            encoder_example,
            ({0: free},),
            ["pixels"],
            ["embedding"],
        ),
        (
            DECODER_FILE,
            _Decoder(sam),
            decoder_example,
            (None, *prompts, {0: free}, {0: free}),
            ["embedding", "points", "labels", "mask_logits", "has_mask", "rows", "columns"],
            ["logits", "predicted_iou", "masks"],
        ),
    ):
        program = torch.onnx.export(
            module.eval(),
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=shapes,
            verbose=False,
        )
        assert program is not None
        model = program.model_proto
        _keep_squares_small(model.graph)
        _name_maxima(model.graph)
        for key, value in (
            ("weights", weights),
            ("config", config.to_json()),
            ("image_size", str(size)),
            ("pixel_mean", json.dumps(PIXEL_MEAN)),
            ("pixel_std", json.dumps(PIXEL_STD)),
        ):
            model.metadata_props.add(key=key, value=value)
        onnx.save(model, directory / file)
    return [directory / ENCODER_FILE, directory / DECODER_FILE]


def _keep_squares_small(graph: onnx.GraphProto) -> None:
    """Divides what every layer norm is given, and its epsilon to match: the result is the same.

    Some of what MobileSAM's encoder norms is beyond 500, whose square no fp16 can hold. A runtime
    that takes the squares of a norm in fp16 would return nothing but zeros.
    """
    from onnx import helper

    factor = "before_norm"
    graph.initializer.append(helper.make_tensor(factor, 1, [], [_BEFORE_NORM]))
    nodes = []
    for node in graph.node:
        if node.op_type == "LayerNormalization":
            smaller = f"{node.input[0]}_before_{node.name}"
            nodes.append(helper.make_node("Mul", [node.input[0], factor], [smaller]))
            node.input[0] = smaller
            epsilon = next(a for a in node.attribute if a.name == "epsilon")
            epsilon.f *= _BEFORE_NORM**2
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _name_maxima(graph: onnx.GraphProto) -> None:
    """Makes what is clipped from below only a maximum, which it is: TensorRT clips no integers."""
    for node in graph.node:
        if node.op_type == "Clip" and len(node.input) == 2:
            node.op_type = "Max"
