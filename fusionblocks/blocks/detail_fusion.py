"""The fusion layer of the detail features: gradient residual dense block, then invertible couplings."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fusionblocks._support.checks import check_divisible, check_features, check_positive
from fusionblocks.blocks.affine_coupling import AffineCoupling
from fusionblocks.blocks.gradient_residual_dense import GradientResidualDense
from fusionblocks.blocks.invertible_conv import split_channels
from fusionblocks.blocks.reaching import in_a_row


class DetailFusion(nn.Module):
    """Fuses summed detail features: :class:`GradientResidualDense`, then affine couplings of its channel halves.

    Args:
        channels: Width ``C`` of the feature map, an even number.
        num_layers: Affine couplings in a row.
        clamp: Bound of the couplings' exponent.
        expand_ratio: Hidden channels of the couplings' subnets for each of their input channels.

    Raises:
        ValueError: If ``channels`` is not even.

    Reference:
        "A Semantic-Aware and Multi-Guided Network for Infrared-Visible Image Fusion", 2025 (published class
        ``DetailFeatureExtraction``).

    Example:
        >>> import torch
        >>> from fusionblocks import DetailFusion
        >>> infrared, visible = torch.rand(2, 1, 8, 9, 7)
        >>> DetailFusion(8)(infrared + visible).shape
        torch.Size([1, 8, 9, 7])
    """

    kind = "map"

    def __init__(self, channels: int, *, num_layers: int = 2, clamp: float = 2.0, expand_ratio: float = 2) -> None:
        super().__init__()
        check_divisible("channels", channels, "the number of halves", 2)
        check_positive(num_layers=num_layers)
        self.channels = channels
        self.gradient_dense = GradientResidualDense(channels)
        self.couplings = nn.ModuleList(
            AffineCoupling(channels, clamp=clamp, expand_ratio=expand_ratio) for _ in range(num_layers)
        )

    def reach(self) -> int | None:
        """Return the rows around a row that are seen, see :func:`fusionblocks.blocks.reach`."""
        return in_a_row(self.gradient_dense, *self.couplings)

    def forward(self, x: Tensor) -> Tensor:
        """Fuse the sum ``(B, C, H, W)`` of both modalities' detail features to ``(B, C, H, W)``."""
        check_features("x", x, self.channels)
        first, second = split_channels(self.gradient_dense(x))
        for coupling in self.couplings:
            first, second = coupling(first, second)
        return torch.cat([first, second], dim=1)
