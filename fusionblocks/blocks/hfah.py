"""Hierarchical feature aggregation head (SGDFuse, stage II)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm.layers.cbam import ChannelAttn
from torch import Tensor, nn

from fusionblocks._support.checks import check_features, check_positive


class HFAH(nn.Module):
    """Hierarchical feature aggregation head: a pyramid of feature maps becomes one picture in [-1, 1].

    Every level is weighted by channel attention, reduced to a common width and brought to the size of the finest
    level; three convolutions and a hyperbolic tangent turn the stack into a picture.

    Args:
        in_channels: Channels of each level, the finest first.
        out_channels: Channels of the picture.
        hidden_channels: Common width of the levels; the convolutions go through it and through its half.
        reduction: Every level's attention has ``1 / reduction`` of its channels inside (at least one).

    Raises:
        ValueError: If ``in_channels`` is empty, or a width is not a positive integer.

    Reference:
        *SGDFuse: SAM-Guided Diffusion for High-Fidelity Infrared and Visible Image Fusion* (2025), class ``HFAH``;
        its channel attention is that of *CBAM: Convolutional Block Attention Module* (2018).

    Example:
        >>> import torch
        >>> from fusionblocks import HFAH
        >>> head = HFAH((16, 32), hidden_channels=16)
        >>> head([torch.rand(1, 16, 12, 10), torch.rand(1, 32, 6, 5)]).shape
        torch.Size([1, 3, 12, 10])
    """

    stands_alone = "takes maps of several sizes"

    def __init__(
        self,
        in_channels: Sequence[int] = (64, 128, 256, 512),
        out_channels: int = 3,
        *,
        hidden_channels: int = 64,
        reduction: int = 16,
    ) -> None:
        super().__init__()
        if isinstance(in_channels, int) or not len(in_channels):
            raise ValueError(f"in_channels must be the channels of each level, got {in_channels!r}")
        check_positive(out_channels=out_channels, hidden_channels=hidden_channels, reduction=reduction)
        check_positive(**{f"in_channels[{level}]": channels for level, channels in enumerate(in_channels)})
        self.in_channels = tuple(in_channels)
        half = max(1, hidden_channels // 2)
        self.attention = nn.ModuleList(ChannelAttn(channels, rd_ratio=1 / reduction) for channels in in_channels)
        self.reduce = nn.ModuleList(nn.Conv2d(channels, hidden_channels, 1) for channels in in_channels)
        self.head = nn.Sequential(
            nn.Conv2d(hidden_channels * len(in_channels), hidden_channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden_channels, half, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(half, out_channels, 3, padding=1),
            nn.Tanh(),
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return the picture of a feature pyramid.

        Args:
            features: One map ``(B, in_channels[i], H_i, W_i)`` a level, the finest first; any sizes.

        Returns:
            ``(B, out_channels, H_0, W_0)`` in [-1, 1].

        Raises:
            ValueError: If the number of levels or a level's shape differs from what the head was built for.
        """
        if len(features) != len(self.in_channels):
            raise ValueError(f"features must have {len(self.in_channels)} levels, got {len(features)}")
        for level, (feature, channels) in enumerate(zip(features, self.in_channels, strict=True)):
            check_features(f"features[{level}]", feature, channels)
            if feature.shape[0] != features[0].shape[0]:
                raise ValueError(
                    f"features[{level}] must have the batch of features[0], {features[0].shape[0]}, "
                    f"got {feature.shape[0]}"
                )
        finest = features[0].shape[-2:]
        aligned = []
        for feature, attention, reduce in zip(features, self.attention, self.reduce, strict=True):
            reduced = reduce(attention(feature))  # (B, hidden, H_i, W_i)
            if reduced.shape[-2:] != finest:
                reduced = F.interpolate(reduced, size=finest, mode="bilinear", align_corners=True)
            aligned.append(reduced)
        return self.head(torch.cat(aligned, dim=1))
