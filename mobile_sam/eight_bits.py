"""Weights in eight bits: a quarter of the bytes that float32 takes in a file.

Only how they are stored: they are read back as float32, and computed with as ever. Each row of a
matrix, or kernel of a convolution, has a scale of its own, so that its largest weight is 127.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mobile_sam.quoting import quoted

_SCALE = ".scale"
_LARGEST = 127
_LEAST_ROWS = 32  # what is smaller saves nothing worth its error


def quantized(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns what to store: int8 matrices and kernels, each with its scales as `NAME.scale`.

    Args:
        state: tensors by name. What is no matrix of at least 32 rows and columns, such as biases,
            norms and depthwise kernels, is stored as float16.
    """
    stored = {}
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            stored[name] = tensor
        elif tensor.ndim < 2 or min(len(tensor), tensor[0].numel()) < _LEAST_ROWS:
            stored[name] = tensor.half()
        else:
            rows = tensor.float().flatten(1)
            scale = rows.abs().amax(dim=1) / _LARGEST
            steps = rows / scale.clamp_min(torch.finfo(torch.float32).tiny)[:, None]
            stored[name] = steps.round().to(torch.int8).view(tensor.shape)
            stored[name + _SCALE] = scale
    return stored


def dequantized(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors that `quantized` was given, but for what rounding took.

    Raises:
        ValueError: scales are not as many as the rows that they are of; the message names them.
    """
    state = dict(stored)
    for name, tensor in stored.items():
        scale = state.pop(name + _SCALE, None)
        if scale is None:
            continue
        if tensor.ndim < 2 or scale.shape != tensor.shape[:1]:
            shapes = tuple(scale.shape), tuple(tensor.shape)
            raise ValueError(f"scales of {quoted(name)} have shape {shapes[0]}, it has {shapes[1]}")
        state[name] = tensor.float() * scale.float().view(-1, *[1] * (tensor.ndim - 1))
    return state
