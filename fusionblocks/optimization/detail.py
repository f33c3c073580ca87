"""The detail branch of SMFNet in strips."""

from __future__ import annotations

import torch
from torch import Tensor

from fusionblocks.blocks._checks import check_features
from fusionblocks.blocks.detail_fusion import DetailFusion
from fusionblocks.blocks.gradient_residual_dense import GradientResidualDense
from fusionblocks.blocks.invertible_conv import split_channels
from fusionblocks.optimization.recast import fast
from fusionblocks.optimization.strips import in_strips


@fast(GradientResidualDense)
class FastGradientResidualDense(GradientResidualDense):
    """The concatenated features of the dense block never exist as a whole."""

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``(B, C, H, W)`` to ``(B, C, H, W)``."""
        check_features("x", x, self.channels)
        return in_strips(super().forward, x, halo=3, factor=4)


@fast(DetailFusion)
class FastDetailFusion(DetailFusion):
    """Each coupling in one sweep."""

    def forward(self, x: Tensor) -> Tensor:
        """Fuse the sum ``(B, C, H, W)`` of both modalities' detail features to ``(B, C, H, W)``."""
        check_features("x", x, self.channels)
        x = self.gradient_dense(x)
        for coupling in self.couplings:
            x = in_strips(lambda x, c=coupling: torch.cat(c(*split_channels(x)), dim=1), x, halo=2, factor=2, onto=(x,))
        return x
