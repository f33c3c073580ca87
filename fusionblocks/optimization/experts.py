"""Mixtures of experts whose experts share a sweep over their input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionblocks._support.modules import is_a
from fusionblocks.blocks.mixture_of_experts import MixtureOfExperts, UniNet
from fusionblocks.blocks.reaching import reach, side_by_side
from fusionblocks.optimization.rewriting import Rewrite, is_convolution, like, rewrites
from fusionblocks.optimization.strips import in_strips


@rewrites(MixtureOfExperts)
class FastMixtureOfExperts(Rewrite, MixtureOfExperts):
    """The experts' first convolutions are one; their second ones, the gate and the sum share a sweep."""

    reduce: nn.Conv2d
    widths: list[int]
    halo: int

    @classmethod
    def fits(cls, module: Any) -> bool:
        """The experts are usual ones, and their first convolutions differ in weights and width alone."""
        if not all(is_a(expert, UniNet) for expert in module.experts) or not is_a(module.act, nn.LeakyReLU):
            return False
        convs = [expert.reduce for expert in module.experts]
        acts = [expert.act for expert in module.experts]
        return (
            all(is_convolution(conv) and conv.groups == 1 and conv.bias is not None for conv in convs)
            and len({(conv.kernel_size, conv.dilation) for conv in convs}) == 1
            and all(is_a(act, nn.LeakyReLU) for act in acts)
            and len({act.negative_slope for act in acts}) == 1
            and all(is_a(expert.expand, nn.Conv2d) and reach(expert.expand) is not None for expert in module.experts)
        )

    def prepare(self) -> None:
        """Concatenate the outputs of the experts' first convolutions."""
        convs: list[Any] = [expert.reduce for expert in self.experts]
        self.widths = [conv.out_channels for conv in convs]
        weight, bias = torch.cat([conv.weight for conv in convs]), torch.cat([conv.bias for conv in convs])
        self.reduce = like(convs[0], weight, bias)
        self.halo = side_by_side(*(expert.expand for expert in self.experts))

    def forward(self, x: Tensor) -> Tensor:
        """Return the gated sum of the experts' answers, activated."""
        gates = self.gate(x)
        experts: Any = self.experts
        hidden = F.leaky_relu_(self.reduce(x), experts[0].act.negative_slope)
        return in_strips(self._mixed, hidden, gates, halo=self.halo)

    def _mixed(self, hidden: Tensor, gates: Tensor) -> Tensor:
        mixed: Any = None
        experts: Any = self.experts
        for expert, features, gate in zip(
            experts, hidden.split(self.widths, dim=1), gates.split(1, dim=1), strict=True
        ):
            answer = F.leaky_relu_(expert.expand(features), expert.act.negative_slope).mul_(gate)
            mixed = answer if mixed is None else mixed.add_(answer)
        return F.leaky_relu_(mixed, self.act.negative_slope)
