"""SAM's mask decoder: image embedding and prompt tokens in, logits and predicted IoU out.

Kirillov et al. 2023, arXiv:2304.02643, appendix A, "Lightweight mask decoder".
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobile_sam.modeling.channels_last import LayerNorm2d, normed
from mobile_sam.modeling.config import SamConfig
from mobile_sam.modeling.transformer import TwoWayTransformer


class Head(nn.Module):
    """Fully connected layers with ReLU between them."""

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, depth: int) -> None:
        super().__init__()
        dims = [in_dim] + [hidden_dim] * (depth - 1) + [out_dim]
        self.layers = nn.ModuleList(
            nn.Linear(before, after) for before, after in zip(dims[:-1], dims[1:], strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class MaskDecoder(nn.Module):
    """One mask for a clear prompt and `multimasks` for an ambiguous one, in this order."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        dim = config.embedding_dim
        masks = config.multimasks + 1
        self.transformer = TwoWayTransformer(
            config.decoder_depth, dim, config.decoder_heads, config.decoder_mlp_dim
        )
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(masks, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, kernel_size=2, stride=2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            Head(dim, dim, dim // 8, 3) for _ in range(masks)
        )
        self.iou_prediction_head = Head(dim, config.iou_head_dim, masks, config.iou_head_depth)

    @property
    def own_tokens(self) -> int:
        """Number of tokens before those of the prompt."""
        return 1 + self.mask_tokens.num_embeddings

    def forward(
        self,
        embedding: Tensor,
        positions: Tensor,
        prompt_tokens: Tensor,
        prompt_map: Tensor,
        seen: Tensor | None = None,
        masks: slice | Tensor = slice(None),
        rows: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Decodes N objects.

        Args:
            embedding: float (N or 1, dim, h, w), the image embedding of each object's image.
            positions: float (1, dim, h, w).
            prompt_tokens: float (N, T, dim).
            prompt_map: float (N or 1, dim, h or 1, w or 1), the embedded mask prompts.
            seen: bool (N, own_tokens + T), which tokens count; None: all of them.
            masks: which of the masks to compute, a slice or their numbers.
            rows: of cells, from the top, to compute logits of; None: all.

        Returns:
            Logits, float (N, M, 4 rows, 4 w), and predicted IoU, float (N, M).
        """
        count = prompt_tokens.shape[0]  # not len(): that would fix it in an exported graph
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.expand(count, -1, -1), prompt_tokens], dim=1)
        h, w = embedding.shape[-2:]
        rows = h if rows is None else rows
        # Channels last, as an encoder leaves them in memory.
        image = embedding.permute(0, 2, 3, 1) + prompt_map.permute(0, 2, 3, 1)
        tokens, image = self.transformer(
            image.flatten(1, 2).contiguous(), positions.flatten(2).transpose(1, 2), tokens, seen
        )
        heads = enumerate(self.output_hypernetworks_mlps)
        kernels = torch.stack([head(tokens[:, 1 + i]) for i, head in heads], dim=1)[:, masks]
        logits = self._fine(image[:, : rows * w]) @ kernels.transpose(1, 2)
        # Row and column of the cell, of the first doubling, of the second; then the mask.
        logits = logits.unflatten(1, (rows, w, 2, 2, 2, 2)).permute(0, 7, 1, 3, 5, 2, 4, 6)
        logits = logits.flatten(5, 7).flatten(2, 4)
        return logits, self.iou_prediction_head(tokens[:, 0])[:, masks]

    def _fine(self, image: Tensor) -> Tensor:
        """Doubles the resolution twice: (N, P, dim) to (N, P * 2 * 2 * 2 * 2, dim / 8).

        A transposed convolution of stride 2 and kernel 2 is four products a cell, and a cell's
        four children stay with it until the logits are there: no map is laid out anew.
        """
        first, norm, activation, second, last = self.output_upscaling
        half = activation(normed(norm, _children(image, first)))
        return last(_children(half, second))


def _children(x: Tensor, doubling: nn.Module) -> Tensor:
    """Returns the cells' four children each, (N, P, in) to (N, P * 2 * 2, out), rows before
    columns."""
    assert isinstance(doubling, nn.ConvTranspose2d) and doubling.bias is not None
    weight = doubling.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (2 2 out, in)
    children = F.linear(x, weight, doubling.bias.repeat(4))
    return children.unflatten(2, (4, -1)).flatten(1, 2)
