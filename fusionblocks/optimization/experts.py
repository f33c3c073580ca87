"""Mixtures of experts whose experts share a sweep over their input."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionblocks.blocks._checks import check_features
from fusionblocks.blocks.degradation_experts import LowLightExpert
from fusionblocks.blocks.mixture_of_experts import MixtureOfExperts, UniNet
from fusionblocks.optimization.folding import frozen
from fusionblocks.optimization.recast import fast
from fusionblocks.optimization.strips import in_strips


@fast(MixtureOfExperts)
class FastMixtureOfExperts(MixtureOfExperts):
    """The experts' first convolutions are one; their second ones, the gate and the sum share a sweep."""

    reduce: nn.Conv2d | None

    def prepare(self) -> None:
        """Concatenate the outputs of the experts' first convolutions."""
        self.reduce = None
        if not all(type(expert) is UniNet for expert in self.experts):
            return
        convs = [expert.reduce for expert in self.experts]
        self.widths = [conv.out_channels for conv in convs]
        merged = nn.utils.skip_init(
            nn.Conv2d, self.channels, sum(self.widths), 3, padding=1, dtype=convs[0].weight.dtype
        )
        merged.weight = frozen(torch.cat([conv.weight for conv in convs]))
        merged.bias = frozen(torch.cat([conv.bias for conv in convs]))
        self.reduce = merged
        for expert in self.experts:
            del expert.reduce

    def forward(self, x: Tensor) -> Tensor:
        """Return the gated sum of the experts' answers, activated."""
        if self.reduce is None:
            return super().forward(x)
        gates = self.gate(x)
        hidden = F.leaky_relu_(self.reduce(x), self.experts[0].act.negative_slope)
        return in_strips(self._mixed, hidden, gates, halo=1)

    def _mixed(self, hidden: Tensor, gates: Tensor) -> Tensor:
        mixed = None
        for expert, features, gate in zip(
            self.experts, hidden.split(self.widths, dim=1), gates.split(1, dim=1), strict=True
        ):
            answer = F.leaky_relu_(expert.expand(features), expert.act.negative_slope).mul_(gate)
            mixed = answer if mixed is None else mixed.add_(answer)
        return F.leaky_relu_(mixed, self.act.negative_slope)


@fast(LowLightExpert)
class FastLowLightExpert(LowLightExpert):
    """All steps along the curves in one sweep."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the enhanced features plus the features themselves."""
        check_features("x", x, self.channels)
        return in_strips(super().forward, x, halo=1)
