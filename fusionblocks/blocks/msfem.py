"""Multi-scale feature enhancement (SGDFuse, stage I)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fusionblocks._support.checks import check_features, check_positive
from fusionblocks.blocks.reaching import in_a_row, side_by_side


class MSFEM(nn.Module):
    """Multi-scale feature enhancement: what several receptive fields see is added to the input through a sigmoid gate.

    Between the input and the sigmoid everything is a convolution, so the gate is one learned filter, whose reach is
    that of the largest kernel and of the two depthwise 3x3 behind it. The result lies between ``x`` and ``x + 1``.

    Args:
        channels: Channels C of the input; 1 for an infrared or a luma image.
        hidden_channels: Channels of every branch.
        kernel_sizes: Odd sizes of the parallel convolutions, beside which a 1x1 branch looks at the pixel itself.

    Raises:
        ValueError: If a width is not a positive integer, or a kernel size is not odd and positive.

    Reference:
        *SGDFuse: SAM-Guided Diffusion for High-Fidelity Infrared and Visible Image Fusion* (2025), class ``MSFEM``.

    Example:
        >>> import torch
        >>> from fusionblocks import MSFEM
        >>> MSFEM(hidden_channels=8)(torch.rand(2, 1, 13, 17)).shape
        torch.Size([2, 1, 13, 17])
    """

    kind = "map"

    def __init__(
        self, channels: int = 1, *, hidden_channels: int = 32, kernel_sizes: Sequence[int] = (3, 5, 7)
    ) -> None:
        super().__init__()
        check_positive(channels=channels, hidden_channels=hidden_channels)
        if not kernel_sizes or any(not isinstance(size, int) or size < 1 or size % 2 == 0 for size in kernel_sizes):
            raise ValueError(f"kernel_sizes must be odd positive integers, got {kernel_sizes!r}")
        self.channels = channels
        wide = hidden_channels * len(kernel_sizes)
        self.point = nn.Conv2d(channels, hidden_channels, 1)
        self.scales = nn.ModuleList(
            nn.Conv2d(channels, hidden_channels, size, padding=size // 2) for size in kernel_sizes
        )
        self.enhance = nn.Sequential(
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide),
            nn.Conv2d(wide, hidden_channels, 1),
            nn.Conv2d(hidden_channels, hidden_channels, 3, padding=1, groups=hidden_channels),
        )
        self.gate = nn.Conv2d(2 * hidden_channels, channels, 1)

    def reach(self) -> int | None:
        """Return the rows around a row that are seen, see :func:`fusionblocks.blocks.reach`."""
        scales = in_a_row(side_by_side(*self.scales), self.enhance)
        return in_a_row(side_by_side(scales, self.point), self.gate)

    def forward(self, x: Tensor) -> Tensor:
        """Return the enhanced image or features.

        Args:
            x: ``(B, C, H, W)``.

        Returns:
            ``(B, C, H, W)``.

        Raises:
            ValueError: If ``x`` has another number of channels or dimensions.
        """
        check_features("x", x, self.channels)
        multi_scale = torch.cat([scale(x) for scale in self.scales], dim=1)  # (B, scales * hidden, H, W)
        features = torch.cat([self.enhance(multi_scale), self.point(x)], dim=1)  # (B, 2 * hidden, H, W)
        return x + torch.sigmoid(self.gate(features))
