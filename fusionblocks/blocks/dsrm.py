"""Dense scene reconstruction."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fusionblocks._support.checks import check_features, check_positive
from fusionblocks.blocks._double_norm import DoubleNormConv
from fusionblocks.blocks.reaching import in_a_row


class DSRM(nn.Module):
    """Dense scene reconstruction: convolutions that each see the input and all results before them.

    Args:
        channels: Width ``C`` of the feature map.
        depth: Number of convolutions.

    Raises:
        ValueError: If a size is not positive, or ``x`` has another number of channels.

    Reference:
        "Rethinking the necessity of image fusion in high-level vision tasks" (PSFusion), 2023 (published class
        ``DSRM``).

    Example:
        >>> import torch
        >>> from fusionblocks import DSRM
        >>> DSRM(8)(torch.rand(1, 8, 5, 7)).shape
        torch.Size([1, 8, 5, 7])
    """

    kind = "map"

    def __init__(self, channels: int, *, depth: int = 4) -> None:
        super().__init__()
        check_positive(channels=channels, depth=depth)
        self.channels = channels
        self.convs = nn.ModuleList(DoubleNormConv((i + 1) * channels, channels) for i in range(depth))

    def reach(self) -> int | None:
        """Return the rows around a row that are seen, see :func:`fusionblocks.blocks.reach`."""
        return in_a_row(*self.convs)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct.

        Args:
            x: Feature map ``(B, C, H, W)``.

        Returns:
            The reconstructed features ``(B, C, H, W)``.
        """
        check_features("x", x, self.channels)
        features = [x]
        for conv in self.convs:
            features.append(conv(torch.cat(features, dim=1)))
        return features[-1]
