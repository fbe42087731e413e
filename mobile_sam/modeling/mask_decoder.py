"""SAM's mask decoder: image embedding and prompt tokens in, logits and predicted IoU out.

Kirillov et al. 2023, arXiv:2304.02643, appendix A, "Lightweight mask decoder".
"""

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

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
        masks: slice = slice(None),
    ) -> tuple[Tensor, Tensor]:
        """Decodes N objects.

        Args:
            embedding: float (N or 1, dim, h, w), the image embedding of each object's image.
            positions: float (1, dim, h, w).
            prompt_tokens: float (N, T, dim).
            prompt_map: float (N or 1, dim, h or 1, w or 1), the embedded mask prompts.
            seen: bool (N, own_tokens + T), which tokens count; None: all of them.
            masks: which of the masks to compute.

        Returns:
            Logits, float (N, M, 4 h, 4 w), and predicted IoU, float (N, M).
        """
        count = prompt_tokens.shape[0]  # not len(): that would fix it in an exported graph
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.expand(count, -1, -1), prompt_tokens], dim=1)
        h, w = embedding.shape[-2:]
        image = (embedding + prompt_map).flatten(2).transpose(1, 2).expand(count, -1, -1)
        tokens, image = self.transformer(
            image, positions.flatten(2).transpose(1, 2), tokens, seen
        )
        fine = self.output_upscaling(image.transpose(1, 2).unflatten(2, (h, w)))
        kernels = torch.stack(
            [
                head(tokens[:, 1 + i])
                for i, head in list(enumerate(self.output_hypernetworks_mlps))[masks]
            ],
            dim=1,
        )
        logits = (kernels @ fine.flatten(2)).unflatten(2, fine.shape[-2:])
        return logits, self.iou_prediction_head(tokens[:, 0])[:, masks]
