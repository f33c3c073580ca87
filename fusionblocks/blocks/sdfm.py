"""Superficial detail fusion."""

from __future__ import annotations

import torch
from timm.layers import ConvNormAct
from torch import Tensor, nn

from fusionblocks._support.checks import check_alike, check_divisible, check_positive
from fusionblocks.blocks.local_global_gate import LocalGlobalGate, bottleneck, pooled_bottleneck


class AdaptiveFusion(nn.Module):
    """Per-pixel convex mix of two modalities, after each channel was recalibrated by the pair's mean.

    Args:
        channels: Width ``C`` of both feature maps.
        reduction: How many times narrower the attention branches are inside.

    Raises:
        ValueError: If ``channels`` is not a multiple of ``reduction``, or the inputs' shapes do not fit.

    Reference:
        "Rethinking the necessity of image fusion in high-level vision tasks" (PSFusion), 2023 (published class
        ``Fusion_module``).

    Example:
        >>> import torch
        >>> from fusionblocks import AdaptiveFusion
        >>> fusion = AdaptiveFusion(8).eval()
        >>> fusion(infrared=torch.rand(1, 8, 5, 7), visible=torch.rand(1, 8, 5, 7)).shape
        torch.Size([1, 8, 5, 7])
    """

    kind = "merge"

    def __init__(self, channels: int, *, reduction: int = 4) -> None:
        super().__init__()
        check_divisible("channels", channels, "reduction", reduction)
        hidden = channels // reduction
        self.channels = channels
        self.recalibration = pooled_bottleneck(2 * channels, 2 * hidden)
        self.aggregation = ConvNormAct(2 * channels, channels, 1, bias=True)
        self.gate = LocalGlobalGate(channels, local=nn.Sequential(*bottleneck(channels, hidden)), reduction=reduction)

    def forward(self, infrared: Tensor, visible: Tensor) -> Tensor:
        """Fuse.

        Args:
            infrared: Infrared features ``(B, C, H, W)``.
            visible: Visible features ``(B, C, H, W)``.

        Returns:
            The fused features ``(B, C, H, W)``.
        """
        check_alike(self.channels, infrared=infrared, visible=visible)
        pair = torch.cat([visible, infrared], dim=1)
        pair = pair + pair * torch.sigmoid(self.recalibration(pair))
        visible, infrared = pair.chunk(2, dim=1)
        weight = self.gate(self.aggregation(pair))
        return weight * visible + (1 - weight) * infrared


class SDFM(nn.Module):
    """Superficial detail fusion: three convolutions per modality, then an adaptive per-pixel mix.

    Args:
        in_channels: Width of both modalities' shallow features.
        out_channels: Width ``C`` of the fused features; None: ``in_channels``.
        reduction: How many times narrower the attention branches are inside.

    Raises:
        ValueError: If ``out_channels`` is not a multiple of ``reduction``, or the inputs' shapes do not fit.

    Reference:
        "Rethinking the necessity of image fusion in high-level vision tasks" (PSFusion), 2023 (published class
        ``SDFM``).

    Example:
        >>> import torch
        >>> from fusionblocks import SDFM
        >>> fusion = SDFM(16, 8).eval()
        >>> fusion(infrared=torch.rand(1, 16, 5, 7), visible=torch.rand(1, 16, 5, 7)).shape
        torch.Size([1, 8, 5, 7])
    """

    kind = "merge"

    def __init__(self, in_channels: int, out_channels: int | None = None, *, reduction: int = 4) -> None:
        super().__init__()
        width = in_channels if out_channels is None else out_channels
        check_positive(in_channels=in_channels)
        check_divisible("out_channels", width, "reduction", reduction)
        self.in_channels = in_channels
        self.channels = width

        def details() -> nn.Sequential:
            return nn.Sequential(
                ConvNormAct(in_channels, width, 3),
                ConvNormAct(width, width, 3),
                ConvNormAct(width, width, 3),
            )

        self.infrared = details()
        self.visible = details()
        self.fusion = AdaptiveFusion(width, reduction=reduction)

    def forward(self, infrared: Tensor, visible: Tensor) -> Tensor:
        """Fuse.

        Args:
            infrared: Infrared features ``(B, in_channels, H, W)``.
            visible: Visible features ``(B, in_channels, H, W)``.

        Returns:
            The fused features ``(B, C, H, W)``.
        """
        check_alike(self.in_channels, infrared=infrared, visible=visible)
        return self.fusion(infrared=self.infrared(infrared), visible=self.visible(visible))
