"""TinyViT as MobileSAM's image encoder: pixels in, image embedding out.

The blocks are TinyViT's; the arrangement is MobileSAM's (Zhang et al. 2023, arXiv:2306.14289): a
stage ends with its downsampling, the strides are free, and a neck stands where the classifier was.
"""

from itertools import pairwise

from torch import Tensor, nn

from mobile_sam.modeling.channels_last import LayerNorm2d
from mobile_sam.modeling.config import SamConfig
from mobile_sam.modeling.tiny_vit import ConvNorm, MBConv, PatchEmbed, TinyVitBlock


class Downsample(nn.Module):
    """Goes to other channels, and to coarser cells where the stride is 2.

    (B, in_dim, H, W) to (B, out_dim, H / stride, W / stride).
    """

    def __init__(self, in_dim: int, out_dim: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_dim, out_dim)
        self.conv2 = ConvNorm(out_dim, out_dim, kernel=3, stride=stride, groups=out_dim)
        self.conv3 = ConvNorm(out_dim, out_dim)
        self.activation = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.conv1(x))
        x = self.activation(self.conv2(x))
        return self.conv3(x)


class ConvolutionStage(nn.Module):
    """Inverted bottlenecks, (B, dim, H, W) to the same; then the downsampling."""

    def __init__(self, dim: int, depth: int, downsample: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(MBConv(dim) for _ in range(depth)))
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        return self.downsample(self.blocks(x))


class AttentionStage(nn.Module):
    """Blocks that attend within windows, (B, dim, H, W) to the same; then the downsampling."""

    def __init__(
        self, dim: int, depth: int, heads: int, window: int, downsample: nn.Module
    ) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(TinyVitBlock(dim, heads, window) for _ in range(depth)))
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        # The blocks want channels last.
        x = self.blocks(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.downsample(x)


class ImageEncoder(nn.Module):
    """The whole encoder, for pictures of any size that is a multiple of the stride."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        dims = config.encoder_dims
        downsamples: list[nn.Module] = [
            Downsample(before, after, stride)
            for (before, after), stride in zip(pairwise(dims), config.encoder_strides, strict=True)
        ]
        downsamples.append(nn.Identity())
        self.patch_embed = PatchEmbed(dims[0])
        stages: list[nn.Module] = [
            ConvolutionStage(dims[0], config.encoder_depths[0], downsamples[0])
        ]
        for i in range(1, len(dims)):
            stages.append(
                AttentionStage(
                    dims[i],
                    config.encoder_depths[i],
                    config.encoder_heads[i],
                    config.encoder_windows[i],
                    downsamples[i],
                )
            )
        self.layers = nn.Sequential(*stages)
        self.neck = nn.Sequential(
            nn.Conv2d(dims[-1], config.embedding_dim, kernel_size=1, bias=False),
            LayerNorm2d(config.embedding_dim),
            nn.Conv2d(
                config.embedding_dim, config.embedding_dim, kernel_size=3, padding=1, bias=False
            ),
            LayerNorm2d(config.embedding_dim),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Encodes pictures.

        Args:
            pixels: float (B, 3, H, W), normalised RGB.

        Returns:
            float (B, embedding_dim, H / stride, W / stride).
        """
        return self.neck(self.layers(self.patch_embed(pixels)))
