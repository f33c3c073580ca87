"""Profound semantic fusion."""

from __future__ import annotations

import torch
from einops import rearrange
from timm.layers import ConvNormAct
from torch import Tensor, nn

from fusionblocks import ops
from fusionblocks._support.checks import check_alike, check_divisible, check_positive
from fusionblocks.blocks.dense import DenseLayer


class DualCrossAttention(nn.Module):
    """Spatial attention of two modalities over one key that the pair shares, each refining the other.

    Both streams attend to the key computed from the concatenated pair; what a stream gathers from its own values is
    added, with a learned gain that starts at zero, to the *other* modality. The attention matrix of ``H W`` by
    ``H W`` entries is never formed where the operator's backend can avoid it.

    Args:
        channels: Width ``C`` of both feature maps.
        num_heads: Heads that share the width.
        scale: Factor on the attention logits; the published network has none.

    Raises:
        ValueError: If ``channels`` is not a multiple of ``num_heads``, or the inputs' shapes do not fit.

    Reference:
        "Rethinking the necessity of image fusion in high-level vision tasks" (PSFusion), 2023 (published class
        ``GEFM``).

    Example:
        >>> import torch
        >>> from fusionblocks import DualCrossAttention
        >>> fusion = DualCrossAttention(8, num_heads=2).eval()
        >>> fusion(infrared=torch.rand(1, 8, 5, 7), visible=torch.rand(1, 8, 5, 7)).shape
        torch.Size([1, 8, 5, 7])
    """

    kind = "merge"

    def __init__(self, channels: int, *, num_heads: int = 1, scale: float = 1.0) -> None:
        super().__init__()
        check_divisible("channels", channels, "num_heads", num_heads)
        self.channels = channels
        self.num_heads = num_heads
        self.scale = scale
        self.shared_key = ConvNormAct(2 * channels, channels, 3)
        self.infrared_query = ConvNormAct(channels, channels, 3)
        self.infrared_value = ConvNormAct(channels, channels, 3)
        self.visible_query = ConvNormAct(channels, channels, 3)
        self.visible_value = ConvNormAct(channels, channels, 3)
        self.infrared_gain = nn.Parameter(torch.zeros(1))
        self.visible_gain = nn.Parameter(torch.zeros(1))
        self.merge = ConvNormAct(2 * channels, channels, 3)

    def forward(self, infrared: Tensor, visible: Tensor) -> Tensor:
        """Fuse.

        Args:
            infrared: Infrared features ``(B, C, H, W)``.
            visible: Visible features ``(B, C, H, W)``.

        Returns:
            The fused features ``(B, C, H, W)``.
        """
        check_alike(self.channels, infrared=infrared, visible=visible)
        height = visible.shape[-2]

        def to_tokens(x: Tensor) -> Tensor:
            return rearrange(x, "b (heads c) h w -> b heads (h w) c", heads=self.num_heads)

        def to_map(x: Tensor) -> Tensor:
            return rearrange(x, "b heads (h w) c -> b (heads c) h w", h=height)

        # the paper's K of a modality is the query here, its shared Q the key: its softmax runs over the shared Q
        from_infrared, from_visible = ops.dual_cross_attention(
            to_tokens(self.infrared_query(infrared)),
            to_tokens(self.visible_query(visible)),
            to_tokens(self.shared_key(torch.cat([visible, infrared], dim=1))),
            to_tokens(self.infrared_value(infrared)),
            to_tokens(self.visible_value(visible)),
            scale=self.scale,
        )
        refined_infrared = infrared + self.visible_gain * to_map(from_visible)
        refined_visible = visible + self.infrared_gain * to_map(from_infrared)
        return self.merge(torch.cat([refined_infrared, refined_visible], dim=1))


class PSFM(nn.Module):
    """Profound semantic fusion: a dense layer per modality, then attention of both over a shared key.

    Args:
        in_channels: Width of both modalities' deep features.
        out_channels: Width ``C`` of the fused features; None: ``in_channels``.
        reduction: How many times narrower than ``out_channels`` the dense convolutions are.
        depth: Number of dense convolutions per modality.
        num_heads: Heads of the attention.

    Raises:
        ValueError: If ``out_channels`` is not a multiple of ``reduction`` or ``num_heads``, or the inputs' shapes do
            not fit.

    Reference:
        "Rethinking the necessity of image fusion in high-level vision tasks" (PSFusion), 2023 (published class
        ``PSFM``).

    Example:
        >>> import torch
        >>> from fusionblocks import PSFM
        >>> fusion = PSFM(16, 8).eval()
        >>> fusion(infrared=torch.rand(1, 16, 5, 7), visible=torch.rand(1, 16, 5, 7)).shape
        torch.Size([1, 8, 5, 7])
    """

    kind = "merge"

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        *,
        reduction: int = 4,
        depth: int = 4,
        num_heads: int = 1,
    ) -> None:
        super().__init__()
        check_positive(in_channels=in_channels)
        out_channels = in_channels if out_channels is None else out_channels
        self.in_channels = in_channels
        self.channels = out_channels
        self.infrared = DenseLayer(in_channels, out_channels, reduction=reduction, depth=depth)
        self.visible = DenseLayer(in_channels, out_channels, reduction=reduction, depth=depth)
        self.fusion = DualCrossAttention(out_channels, num_heads=num_heads)

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
