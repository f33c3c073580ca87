"""The inverted residual: wide inside, narrow outside, depthwise in between."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fusionblocks._support.checks import check_features, check_positive
from fusionblocks.blocks.reaching import in_a_row, of_convolution


class InvertedResidual(nn.Module):
    """Bottleneck turned inside out: 1 x 1 up, depthwise 3 x 3 on a reflected border, 1 x 1 down; no shortcut.

    It is the subnet of the invertible blocks, which need no residual of its own.

    Args:
        in_channels: Width ``C_in`` of the input.
        out_channels: Width ``C_out`` of the output; ``None``: ``in_channels``.
        expand_ratio: Hidden channels for each input channel.

    Reference:
        "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018; "A Semantic-Aware and Multi-Guided Network for
        Infrared-Visible Image Fusion", 2025 (published class ``InvertedResidualBlock``).

    Example:
        >>> import torch
        >>> from fusionblocks import InvertedResidual
        >>> InvertedResidual(8, 4)(torch.rand(1, 8, 9, 7)).shape
        torch.Size([1, 4, 9, 7])
    """

    kind = "map"

    def __init__(self, in_channels: int, out_channels: int | None = None, *, expand_ratio: float = 2) -> None:
        super().__init__()
        out_channels = in_channels if out_channels is None else out_channels
        hidden = int(in_channels * expand_ratio)
        check_positive(in_channels=in_channels, out_channels=out_channels)
        if hidden < 1:
            raise ValueError(f"expand_ratio must leave at least one hidden channel, got {expand_ratio}")
        self.in_channels = in_channels
        self.channels = out_channels
        self.expand = nn.Conv2d(in_channels, hidden, 1, bias=False)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, groups=hidden, bias=False)
        self.reduce = nn.Conv2d(hidden, out_channels, 1, bias=False)
        self.act = nn.ReLU6()

    def reach(self) -> int | None:
        """Return the rows around a row that are seen, see :func:`fusionblocks.blocks.reach`."""
        depthwise = of_convolution(self.depthwise, padded=1) if type(self.depthwise) is nn.Conv2d else None
        return in_a_row(self.expand, self.act, depthwise, self.act, self.reduce)

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``(B, C_in, H, W)`` to ``(B, C_out, H, W)``."""
        check_features("x", x, self.in_channels)
        hidden = self.act(self.expand(x))
        # a single row or column has no neighbour to reflect: it repeats itself
        border = "reflect" if min(x.shape[-2:]) > 1 else "replicate"
        hidden = self.act(self.depthwise(F.pad(hidden, (1, 1, 1, 1), mode=border)))
        return self.reduce(hidden)
