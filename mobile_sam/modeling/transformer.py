"""SAM's two-way transformer: tokens attend to the image, and the image to the tokens.

Kirillov et al. 2023, arXiv:2304.02643, appendix A, "Lightweight mask decoder".

The image has thousands of cells and a prompt a handful of tokens. So what SAM does to every cell,
projecting it to keys, values or queries and back, is done to the tokens here: a score q . (W k) is
(W^T q) . k, and what attention sums up it may project afterwards. The results are the same; two
thirds of the arithmetic and all maps of keys, values and queries are saved.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Weights of a multi-head attention whose inner width may be smaller than its input's."""

    def __init__(self, dim: int, heads: int, reduction: int = 1) -> None:
        super().__init__()
        inner = dim // reduction
        self.heads = heads
        self.scale = 1 / math.sqrt(inner // heads)
        self.q_proj = nn.Linear(dim, inner)
        self.k_proj = nn.Linear(dim, inner)
        self.v_proj = nn.Linear(dim, inner)
        self.out_proj = nn.Linear(inner, dim)

    def split(self, x: Tensor) -> Tensor:
        """Returns (N, T, inner) by heads, (N, T, heads, inner / heads)."""
        return x.unflatten(-1, (self.heads, -1))

    def weights_of(self, projection: nn.Linear) -> Tensor:
        """Returns the weights of q_proj, k_proj or v_proj by heads, (heads, inner / heads, dim)."""
        return projection.weight.unflatten(0, (self.heads, -1))


class SelfAttention(Attention):
    """Tokens attend to tokens."""

    def forward(self, placed: Tensor, tokens: Tensor, seen: Tensor | None) -> Tensor:
        """Attends.

        Args:
            placed: float (N, T, dim), the tokens with their positions: queries and keys.
            tokens: float (N, T, dim): values.
            seen: bool (N, T), which tokens count; None: all of them.

        Returns:
            float (N, T, dim).
        """
        q, k, v = (
            self.split(projection(x)).transpose(1, 2)
            for projection, x in (
                (self.q_proj, placed),
                (self.k_proj, placed),
                (self.v_proj, tokens),
            )
        )
        mask = None if seen is None else seen[:, None, None]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class TokensToImage(Attention):
    """Tokens attend to the image's cells."""

    def forward(self, tokens: Tensor, where: Tensor, image: Tensor) -> Tensor:
        """Attends.

        Args:
            tokens: float (N, T, dim), with their positions: queries.
            where: float (N or 1, P, dim), the cells with their positions: keys. The bias of their
                projection adds the same to all scores of a query, and so nothing.
            image: float (N or 1, P, dim): values.

        Returns:
            float (N, T, dim).
        """
        q = self.split(self.q_proj(tokens)) * self.scale
        q = torch.einsum("nthd,hdc->nthc", q, self.weights_of(self.k_proj))
        shares = (q.flatten(1, 2) @ where.transpose(1, 2)).softmax(-1)
        seen = (shares @ image).unflatten(1, (-1, self.heads))
        out = torch.einsum("nthc,hdc->nthd", seen, self.weights_of(self.v_proj)).flatten(2)
        return self.out_proj(out + self.v_proj.bias)


class ImageToTokens(Attention):
    """The image's cells attend to tokens."""

    def forward(
        self, image: Tensor, where: Tensor, placed: Tensor, tokens: Tensor, seen: Tensor | None
    ) -> Tensor:
        """Attends, and adds the result to the image.

        Args:
            image: float (N or 1, P, dim).
            where: float (N or 1, P, dim), the cells with their positions: queries.
            placed: float (N, T, dim), the tokens with their positions: keys.
            tokens: float (N, T, dim): values.
            seen: bool (N, T), which tokens count; None: all of them.

        Returns:
            float (N, P, dim).
        """
        k = self.split(self.k_proj(placed)) * self.scale
        keys = torch.einsum("nthd,hdc->nhtc", k, self.weights_of(self.q_proj)).flatten(1, 2)
        offsets = torch.einsum("nthd,hd->nht", k, self.q_proj.bias.unflatten(0, (self.heads, -1)))
        # Tokens before cells: a sum over a few tokens is fast only across many cells.
        scores = keys @ where.transpose(1, 2) + offsets.flatten(1)[:, :, None]
        scores = scores.unflatten(1, (self.heads, -1))
        if seen is not None:
            scores = scores.masked_fill(~seen[:, None, :, None], -math.inf)
        shares = scores.softmax(2).flatten(1, 2).transpose(1, 2)
        weights = self.out_proj.weight.unflatten(1, (self.heads, -1))
        values = torch.einsum("nthd,chd->nhtc", self.split(self.v_proj(tokens)), weights)
        # The shares of each head add up to 1, and so do those of the bias.
        values = values + self.out_proj.bias / self.heads
        return torch.baddbmm(image, shares, values.flatten(1, 2))


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
        self.self_attn = SelfAttention(dim, heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = TokensToImage(dim, heads, reduction=2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, mlp_dim)
        self.norm3 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = ImageToTokens(dim, heads, reduction=2)
        self.norm4 = nn.LayerNorm(dim)

    def forward(
        self, tokens: Tensor, image: Tensor, origin: Tensor, positions: Tensor, seen: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if self.first:  # the tokens are still their own origin, so there is nothing to add
            tokens = self.self_attn(tokens, tokens, seen)
        else:
            placed = tokens + origin
            tokens = tokens + self.self_attn(placed, tokens, seen)
        tokens = self.norm1(tokens)

        where = image + positions
        tokens = tokens + self.cross_attn_token_to_image(tokens + origin, where, image)
        tokens = self.norm2(tokens)
        tokens = self.norm3(tokens + self.mlp(tokens))

        image = self.cross_attn_image_to_token(image, where, tokens + origin, tokens, seen)
        return tokens, self.norm4(image)


class TwoWayTransformer(nn.Module):
    """Blocks, and at last the tokens to the image once more."""

    def __init__(self, depth: int, dim: int, heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayBlock(dim, heads, mlp_dim, first=i == 0) for i in range(depth)
        )
        self.final_attn_token_to_image = TokensToImage(dim, heads, reduction=2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(
        self, image: Tensor, positions: Tensor, tokens: Tensor, seen: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Exchanges between image and tokens.

        Args:
            image: float (N or 1, P, dim), the cells of the image embedding in rows.
            positions: float (1, P, dim), the embedding of the cells' positions.
            tokens: float (N, T, dim).
            seen: bool (N, T), which tokens count; None: all of them.

        Returns:
            tokens, float (N, T, dim), and image, float (N, P, dim).
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
