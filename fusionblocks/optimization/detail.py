"""Blocks that see a few rows only, run in strips whole or in part."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fusionblocks._support.checks import check_features
from fusionblocks._support.modules import is_a
from fusionblocks.blocks.degradation_experts import LowLightExpert
from fusionblocks.blocks.detail_fusion import DetailFusion
from fusionblocks.blocks.dsrm import DSRM
from fusionblocks.blocks.gradient_residual_dense import GradientResidualDense
from fusionblocks.blocks.invertible_conv import split_channels
from fusionblocks.blocks.reaching import in_a_row, reach
from fusionblocks.models.smfnet.network import Decoder
from fusionblocks.optimization.rewriting import Rewrite, rewrites
from fusionblocks.optimization.strips import in_strips


class InStrips(Rewrite):
    """A block from one map to one map that has a reach: what it computes on the way never exists as a whole."""

    factor: ClassVar[int] = 1
    channels: int
    halo: int

    @classmethod
    def fits(cls, module: nn.Module) -> bool:
        """The block has a reach."""
        return reach(module) is not None

    def prepare(self) -> None:
        """Find what the block sees."""
        self.halo = in_a_row(self)

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``(B, C, H, W)`` as the block does."""
        check_features("x", x, self.channels)
        return in_strips(super().forward, x, halo=self.halo, factor=self.factor)


@rewrites(GradientResidualDense)
class FastGradientResidualDense(InStrips, GradientResidualDense):
    """The concatenated features of the dense block never exist as a whole."""

    factor = 4


@rewrites(DSRM)
class FastDSRM(InStrips, DSRM):
    """The concatenated features of the dense block never exist as a whole."""

    factor = 4


@rewrites(LowLightExpert)
class FastLowLightExpert(InStrips, LowLightExpert):
    """All steps along the curves in one sweep."""


@rewrites(DetailFusion)
class FastDetailFusion(Rewrite, DetailFusion):
    """Each coupling in one sweep."""

    halos: tuple[int, ...]

    @classmethod
    def fits(cls, module: Any) -> bool:
        """Every coupling has a reach; the dense block's result is its own, so that it can be overwritten."""
        return is_a(module.gradient_dense, GradientResidualDense) and None not in map(reach, module.couplings)

    def prepare(self) -> None:
        """Find what the couplings see."""
        self.halos = tuple(map(reach, self.couplings))

    def forward(self, x: Tensor) -> Tensor:
        """Fuse the sum ``(B, C, H, W)`` of both modalities' detail features to ``(B, C, H, W)``."""
        check_features("x", x, self.channels)
        x = self.gradient_dense(x)
        for coupling, halo in zip(self.couplings, self.halos, strict=True):
            x = in_strips(
                lambda x, c=coupling: torch.cat(c(*split_channels(x)), dim=1), x, halo=halo, factor=2, onto=(x,)
            )
        return x


@rewrites(Decoder)
class FastDecoder(Rewrite, Decoder):
    """SMFNet's decoder: its convolutions in one sweep."""

    halo: int

    @classmethod
    def fits(cls, module: Any) -> bool:
        """The convolutions have a reach."""
        return reach(module.head) is not None

    def prepare(self) -> None:
        """Find what the convolutions see."""
        self.halo = in_a_row(self.head)

    def forward(self, features: Tensor) -> Tensor:
        """Decode features ``(B, C, H, W)`` to a picture ``(B, 1, H, W)`` in [0, 1]."""
        return in_strips(self.head, self.transformer(features), halo=self.halo, factor=2)
