"""Densely connected feature extraction."""

from __future__ import annotations

import torch
from timm.layers import ConvNormAct
from torch import Tensor, nn

from fusionblocks._support.checks import check_divisible, check_features, check_positive
from fusionblocks.blocks.reaching import in_a_row


class DenseLayer(nn.Module):
    """Narrow, densely connected convolutions beside the input, merged into a new width.

    Args:
        in_channels: Width of the feature map.
        out_channels: Width ``C`` of the result; None: ``in_channels``.
        reduction: How many times narrower than ``out_channels`` the dense convolutions are.
        depth: Number of dense convolutions; each sees all before it.

    Raises:
        ValueError: If a size is not positive, ``out_channels`` is not a multiple of ``reduction``, or ``x`` has another
            number of channels.

    Reference:
        "Rethinking the necessity of image fusion in high-level vision tasks" (PSFusion), 2023 (published class
        ``DenseLayer``).

    Example:
        >>> import torch
        >>> from fusionblocks import DenseLayer
        >>> DenseLayer(16, 8)(torch.rand(1, 16, 5, 7)).shape
        torch.Size([1, 8, 5, 7])
    """

    kind = "map"

    def __init__(
        self, in_channels: int, out_channels: int | None = None, *, reduction: int = 4, depth: int = 4
    ) -> None:
        super().__init__()
        out_channels = in_channels if out_channels is None else out_channels
        check_positive(in_channels=in_channels, depth=depth)
        check_divisible("out_channels", out_channels, "reduction", reduction)
        growth = out_channels // reduction
        self.in_channels = in_channels
        self.channels = out_channels
        self.reduce = nn.Conv2d(in_channels, growth, 1)
        self.dense = nn.ModuleList(ConvNormAct(growth * (i + 1), growth, 3) for i in range(depth))
        self.merge = ConvNormAct(in_channels + growth, out_channels, 3)

    def reach(self) -> int | None:
        """Return the rows around a row that are seen, see :func:`fusionblocks.blocks.reach`."""
        return in_a_row(self.reduce, *self.dense, self.merge)

    def forward(self, x: Tensor) -> Tensor:
        """Extract.

        Args:
            x: Feature map ``(B, in_channels, H, W)``.

        Returns:
            The merged features ``(B, C, H, W)``.
        """
        check_features("x", x, self.in_channels)
        reduced = self.reduce(x)
        features: list[Tensor] = []
        for conv in self.dense:
            features.append(conv(torch.cat([*features, reduced], dim=1)))
        return self.merge(torch.cat([x, features[-1]], dim=1))
