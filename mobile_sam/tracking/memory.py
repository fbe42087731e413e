"""Where an object is, as far as SAM's own features say.

Each cell of an image's embedding is compared with the cells near it in images seen before, of
which it is known how much of each was the object's: those most alike say how much of this one is.
So labels are propagated with self-supervised features (Jabri et al. 2020, arXiv:2006.14613), and
those of SAM's encoder, which are there anyhow, do as well. They mind little that an object bends,
turns or grows; but a cell is coarse, some 10 pixels of 640.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mobile_sam.predictor import Embedding, scaled_size
from mobile_sam.tracking.evidence import agreement_of

_RECENT = 3  # images that are remembered beside the first
_REACH = 8  # cells that an object may move from one image to the next
_FARTHER = 2  # cells for each image in which it was not seen
_FARTHEST = 48
_ALIKE = 8  # cells that say something about one
_TEMPERATURE = 0.05  # of their similarities
_FULLEST = 4  # cells of the object that count as wholly its own, be they ever so small
_UNKNOWN = -1.0  # how much of a cell is the object's
_LEAST_AGREEMENT = 0.6  # of a mask with what was believed, to be remembered


def cell_features(embedding: Embedding) -> Tensor:
    """Returns what an image's cells have not in common, as directions: float (C, h, w), without
    the padding, on the embedding's device."""
    height, width = scaled_size(embedding.image_size, embedding.features.shape[-1])
    features = embedding.features[0, :, :height, :width].float()
    return F.normalize(features - features.mean(dim=(1, 2), keepdim=True), dim=0)


@dataclass(eq=False)
class Memory:
    """An object in the images that are remembered: the first, and the last few.

    Attributes:
        features: float16 (K, C, h, w), of their cells.
        shares: float32 (K, h, w), how much of each cell is the object's, 0 to 1; below 0 where that
            is not sure.
    """

    features: Tensor
    shares: Tensor

    @classmethod
    def of(cls, features: Tensor, mask: NDArray[np.bool_]) -> Memory:
        """Begins with an object's mask, bool (H, W), in an image with these `cell_features`."""
        return cls(features.half()[None], _shares(mask, features)[None])

    @torch.inference_mode()
    def belief(self, features: Tensor, unseen: int) -> NDArray[np.float32]:
        """Returns how much of each cell is the object's, as far as can be told: float32 (h, w).

        Args:
            features: the image's `cell_features`.
            unseen: images since the object was seen last: it may be farther away.
        """
        believed = features.new_zeros(features.shape[1:])
        rows, columns = torch.nonzero(self.shares[-1]).T.cpu()
        reach = min(_REACH + _FARTHER * unseen, _FARTHEST)
        height, width = believed.shape
        top, bottom = _around(int(rows.min()), int(rows.max()) + 1, reach, height)
        left, right = _around(int(columns.min()), int(columns.max()) + 1, reach, width)
        # In tiles, of which each looks at what is near it: all at once is many times the work.
        for y, x in product(range(top, bottom, reach), range(left, right, reach)):
            tile = slice(y, min(y + reach, bottom)), slice(x, min(x + reach, right))
            believed[tile] = self._own(features, tile, reach)
        return (believed / self._whole).clamp(max=1).cpu().numpy()

    def _own(self, features: Tensor, tile: tuple[slice, slice], reach: int) -> Tensor:
        """Returns how much of each cell of a tile of the image is the object's, of 0 to 1."""
        near = tuple(
            slice(*_around(cells.start, cells.stop, reach, length))
            for cells, length in zip(tile, features.shape[1:], strict=True)
        )
        now = features[:, tile[0], tile[1]]
        before = self.features[:, :, near[0], near[1]].to(features)
        shares = self.shares[:, near[0], near[1]].flatten().to(features.device)
        alike = now.flatten(1).T @ before.transpose(0, 1).flatten(1)
        out = _farther(tile, near, reach).to(alike.device).repeat(1, len(before))
        alike.masked_fill_(out | (shares < 0), -torch.inf)
        found = alike.topk(min(_ALIKE, len(shares)), dim=1)
        votes = (found.values / _TEMPERATURE).softmax(dim=1)
        return (votes * shares[found.indices]).sum(dim=1).view(now.shape[1:])

    def learn(self, features: Tensor, mask: NDArray[np.bool_], belief: NDArray[np.float32]) -> None:
        """Remembers an object's mask in an image.

        Not if it is another thing than was believed; and a cell that was believed to be the
        object's and is not in the mask is not sure: so no part that a mask leaves out once is lost.
        """
        shares = _shares(mask, features)
        parts = shares / self._whole
        if agreement_of(parts.numpy()[None], 2 * belief - 1)[0] < _LEAST_AGREEMENT:
            return
        shares[(torch.from_numpy(belief) > 0.5) & (parts < 0.5)] = _UNKNOWN
        count = len(self.shares)
        kept = [0, *range(max(1, count + 1 - _RECENT), count)]
        self.features = torch.cat([self.features[kept].to(features.device), features.half()[None]])
        self.shares = torch.cat([self.shares[kept], shares[None]])

    @property
    def _whole(self) -> float:
        """The share of a cell that counts as all of it."""
        shares = self.shares[0].flatten()
        return max(0.05, float(shares.topk(min(_FULLEST, len(shares))).values.mean()))


def _shares(mask: NDArray[np.bool_], features: Tensor) -> Tensor:
    """Returns how much of each cell is in a mask, bool (H, W): float32 (h, w)."""
    height, width = features.shape[1:]
    of_cells = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(of_cells)


def _around(start: int, stop: int, reach: int, length: int) -> tuple[int, int]:
    """Returns where those cells of a row begin and end that are no farther than that from some."""
    return max(0, start - reach), min(length, stop + reach)


def _farther(tile: tuple[slice, slice], near: Sequence[slice], reach: int) -> Tensor:
    """Returns which cells of a tile are farther than that from each cell near it: bool (n, m)."""
    rows, columns = (
        (torch.arange(a.start, a.stop)[:, None] - torch.arange(b.start, b.stop)).abs() > reach
        for a, b in zip(tile, near, strict=True)
    )
    return (rows[:, None, :, None] | columns[None, :, None, :]).flatten(2).flatten(0, 1)
