"""The stem of PSFusion's encoders."""

from __future__ import annotations

from timm.layers import ConvNormAct
from torch import Tensor, nn

from fusionblocks._support.checks import check_features, check_positive
from fusionblocks.blocks.frelu import FReLU


class FunnelStem(nn.Module):
    """First features of a picture at full and at half resolution, with funnel activations.

    The full-resolution map keeps the detail that a ResNet's stem throws away; the half-resolution one, without norm
    and activation, takes the place of the ResNet's first convolution.

    Args:
        in_channels: Channels of the picture, 1 for infrared and 3 for visible.
        channels: Width ``C`` of the half-resolution map, even; the full-resolution map has half of it.

    Raises:
        ValueError: If a size is not positive, ``channels`` is odd, or ``x`` has another number of channels.

    Reference:
        "Rethinking the necessity of image fusion in high-level vision tasks" (PSFusion), 2023 (published class
        ``Feature_extract``).

    Example:
        >>> import torch
        >>> from fusionblocks import FunnelStem
        >>> full, half = FunnelStem(1, 16)(torch.rand(1, 1, 9, 12))
        >>> full.shape, half.shape
        (torch.Size([1, 8, 9, 12]), torch.Size([1, 16, 5, 6]))
    """

    stands_alone = "returns a map at full and one at half size"

    def __init__(self, in_channels: int, channels: int = 64) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, channels=channels)
        if channels % 2:
            raise ValueError(f"channels must be even, got {channels}")
        narrow = channels // 2
        self.in_channels = in_channels
        self.full_resolution = nn.Sequential(
            ConvNormAct(in_channels, narrow, 7, bias=True, apply_act=False),
            FReLU(narrow),
            ConvNormAct(narrow, narrow, 3, bias=True, apply_act=False),
            FReLU(narrow),
        )
        self.half_resolution = nn.Sequential(
            ConvNormAct(narrow, channels, 3, stride=2, bias=True, apply_act=False),
            FReLU(channels),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Extract.

        Args:
            x: Picture ``(B, in_channels, H, W)``.

        Returns:
            The pair ``(full, half)``: ``(B, C / 2, H, W)`` and ``(B, C, ceil(H / 2), ceil(W / 2))``.
        """
        check_features("x", x, self.in_channels)
        full = self.full_resolution(x)
        return full, self.half_resolution(full)
