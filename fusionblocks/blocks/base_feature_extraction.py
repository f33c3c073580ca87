"""BFE: residual groups of transformer blocks that gather what both modalities share over long ranges."""

from __future__ import annotations

from timm.layers import ConvMlp
from torch import Tensor, nn

from fusionblocks._support.checks import check_divisible, check_features, check_positive
from fusionblocks.blocks.transformer import TransformerBlock


class ResidualTransformerGroup(nn.Module):
    """Pairs of transformer blocks, a convolutional bottleneck and a residual around both.

    Each pair is a block with depthwise attention and :class:`LeFF`, then one with dense attention and a plain
    feed-forward network.

    Args:
        channels: Width ``C`` of the feature map, a multiple of ``num_heads`` and of 4.
        num_heads: Heads of the channel attention.
        depth: Pairs of transformer blocks.

    Raises:
        ValueError: If ``channels`` is not a positive multiple of ``num_heads`` and of 4.

    Reference:
        "A Semantic-Aware and Multi-Guided Network for Infrared-Visible Image Fusion", 2025 (published class
        ``Block``).

    Example:
        >>> import torch
        >>> from fusionblocks.blocks import ResidualTransformerGroup
        >>> ResidualTransformerGroup(8, num_heads=2, depth=1)(torch.rand(1, 8, 9, 7)).shape
        torch.Size([1, 8, 9, 7])
    """

    kind = "map"

    def __init__(self, channels: int, *, num_heads: int = 8, depth: int = 2) -> None:
        super().__init__()
        check_positive(depth=depth)
        check_divisible("channels", channels, "the bottleneck's reduction", 4)
        self.channels = channels
        self.pairs = nn.Sequential(
            *(
                nn.Sequential(
                    TransformerBlock(channels, num_heads=num_heads),
                    TransformerBlock(
                        channels,
                        num_heads=num_heads,
                        depthwise=False,
                        feed_forward=ConvMlp(channels, 2 * channels, act_layer=nn.GELU, bias=False),
                    ),
                )
                for _ in range(depth)
            )
        )
        self.bottleneck = nn.Sequential(
            nn.Conv2d(channels, channels // 4, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels // 4, channels // 4, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels // 4, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``(B, C, H, W)``, the residual included."""
        check_features("x", x, self.channels)
        return x + self.bottleneck(self.pairs(x))


class BaseFeatureExtraction(nn.Module):
    """Base feature extraction (BFE): a convolution, then residual groups of transformer blocks.

    Args:
        channels: Width ``C`` of the feature map, a multiple of ``num_heads`` and of 4.
        num_heads: Heads of the channel attention.
        num_layers: Residual groups.
        depth: Pairs of transformer blocks in a group.

    Raises:
        ValueError: If ``channels`` is not a positive multiple of ``num_heads`` and of 4.

    Reference:
        "A Semantic-Aware and Multi-Guided Network for Infrared-Visible Image Fusion", 2025 (published class
        ``SwinIR_Encoder``; the published class ``BaseFeatureExtraction`` is one :class:`TransformerBlock`).

    Example:
        >>> import torch
        >>> from fusionblocks import BaseFeatureExtraction
        >>> BaseFeatureExtraction(8, num_heads=2, num_layers=1, depth=1)(torch.rand(1, 8, 9, 7)).shape
        torch.Size([1, 8, 9, 7])
    """

    kind = "map"

    def __init__(self, channels: int, *, num_heads: int = 8, num_layers: int = 2, depth: int = 2) -> None:
        super().__init__()
        check_positive(num_layers=num_layers)
        self.channels = channels
        self.embed = nn.Conv2d(channels, channels, 3, padding=1)
        self.layers = nn.Sequential(
            *(ResidualTransformerGroup(channels, num_heads=num_heads, depth=depth) for _ in range(num_layers))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Extract the base features ``(B, C, H, W)`` of a feature map ``(B, C, H, W)``."""
        check_features("x", x, self.channels)
        return self.layers(self.embed(x))
