"""SAM's two-way transformer: tokens attend to the image, and the image to the tokens.

Kirillov et al. 2023, arXiv:2304.02643, appendix A, "Lightweight mask decoder".
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Multi-head attention whose inner width may be smaller than its input's."""

    def __init__(self, dim: int, heads: int, reduction: int = 1) -> None:
        super().__init__()
        inner = dim // reduction
        self.heads = heads
        self.q_proj = nn.Linear(dim, inner)
        self.k_proj = nn.Linear(dim, inner)
        self.v_proj = nn.Linear(dim, inner)
        self.out_proj = nn.Linear(inner, dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None) -> Tensor:
        """Attends.

        Args:
            q: float (N, Q, dim).
            k: float (N, K, dim).
            v: float (N, K, dim).
            seen: bool (N, K), which keys count; None: all of them.

        Returns:
            float (N, Q, dim).
        """
        q, k, v = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        )
        mask = None if seen is None else seen[:, None, None]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two layers on each token."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dim, hidden_dim)
        self.lin2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(F.relu(self.lin1(x)))


class TwoWayBlock(nn.Module):
    """Tokens among themselves, tokens to image, each token alone, image to tokens."""

    def __init__(self, dim: int, heads: int, mlp_dim: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention(dim, heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = Attention(dim, heads, reduction=2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, mlp_dim)
        self.norm3 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = Attention(dim, heads, reduction=2)
        self.norm4 = nn.LayerNorm(dim)

    def forward(
        self, tokens: Tensor, image: Tensor, origin: Tensor, positions: Tensor, seen: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if self.first:  # the tokens are still their own origin, so there is nothing to add
            tokens = self.self_attn(tokens, tokens, tokens, seen)
        else:
            placed = tokens + origin
            tokens = tokens + self.self_attn(placed, placed, tokens, seen)
        tokens = self.norm1(tokens)

        where = image + positions
        tokens = tokens + self.cross_attn_token_to_image(tokens + origin, where, image)
        tokens = self.norm2(tokens)
        tokens = self.norm3(tokens + self.mlp(tokens))

        image = image + self.cross_attn_image_to_token(where, tokens + origin, tokens, seen)
        return tokens, self.norm4(image)


class TwoWayTransformer(nn.Module):
    """Blocks, and at last the tokens to the image once more."""

    def __init__(self, depth: int, dim: int, heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayBlock(dim, heads, mlp_dim, first=i == 0) for i in range(depth)
        )
        self.final_attn_token_to_image = Attention(dim, heads, reduction=2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(
        self, image: Tensor, positions: Tensor, tokens: Tensor, seen: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Exchanges between image and tokens.

        Args:
            image: float (N, P, dim), the cells of the image embedding in rows.
            positions: float (1, P, dim), the embedding of the cells' positions.
            tokens: float (N, T, dim).
            seen: bool (N, T), which tokens count; None: all of them.

        Returns:
            tokens and image, of the shapes they came in.
        """
        origin = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, origin, positions, seen)
        attended = self.final_attn_token_to_image(tokens + origin, image + positions, image)
        return self.norm_final_attn(tokens + attended), image


def all_seen(labels: Tensor, none: int, extra: int) -> Tensor | None:
    """Returns which tokens count, bool (N, extra + T), or None if all do.

    `labels` is integer (N, T), `none` the label of those that do not count, and `extra` the
    number of tokens before them that always do.
    """
    seen = labels != none
    # An exported graph has to serve both cases.
    if not torch.compiler.is_exporting() and bool(seen.all()):
        return None
    return torch.cat([seen.new_ones(seen.shape[0], extra), seen], dim=1)
