"""Sparse semantic perception."""

from __future__ import annotations

from torch import Tensor, nn

from fusionblocks._support.checks import check_features, check_positive
from fusionblocks.blocks._double_norm import DoubleNormConv
from fusionblocks.blocks.reaching import in_a_row


class S2PM(nn.Module):
    """Sparse semantic perception: three plain convolutions over the concatenated semantic features.

    Args:
        in_channels: Width of the concatenated features of all levels.
        channels: Width ``C`` of the result; None: ``in_channels``.

    Raises:
        ValueError: If a size is not positive, or ``x`` has another number of channels.

    Reference:
        "Rethinking the necessity of image fusion in high-level vision tasks" (PSFusion), 2023 (published class
        ``S2PM``).

    Example:
        >>> import torch
        >>> from fusionblocks import S2PM
        >>> S2PM(32, 8)(torch.rand(1, 32, 5, 7)).shape
        torch.Size([1, 8, 5, 7])
    """

    kind = "map"

    def __init__(self, in_channels: int, channels: int | None = None) -> None:
        super().__init__()
        channels = in_channels if channels is None else channels
        check_positive(in_channels=in_channels, channels=channels)
        self.in_channels = in_channels
        self.channels = channels
        self.convs = nn.Sequential(
            DoubleNormConv(in_channels, channels),
            DoubleNormConv(channels, channels),
            DoubleNormConv(channels, channels),
        )

    def reach(self) -> int | None:
        """Return the rows around a row that are seen, see :func:`fusionblocks.blocks.reach`."""
        return in_a_row(self.convs)

    def forward(self, x: Tensor) -> Tensor:
        """Perceive.

        Args:
            x: Feature map ``(B, in_channels, H, W)``.

        Returns:
            The semantic features ``(B, C, H, W)``.
        """
        check_features("x", x, self.in_channels)
        return self.convs(x)
