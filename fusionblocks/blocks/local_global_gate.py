"""A gate in [0, 1] from a local branch times a global one, shared by PSFusion's fusion and scene-fidelity blocks."""

from __future__ import annotations

import torch
from timm.layers import ConvNormAct
from torch import Tensor, nn


def bottleneck(channels: int, hidden: int) -> list[nn.Module]:
    """1x1 convolutions ``channels -> hidden -> channels``, each with its norm, no activation at the end."""
    return [
        ConvNormAct(channels, hidden, 1, bias=True),
        ConvNormAct(hidden, channels, 1, bias=True, apply_act=False),
    ]


def pooled_bottleneck(channels: int, hidden: int) -> nn.Sequential:
    """The bottleneck of a map's mean: ``(B, C, H, W)`` to one logit per channel, ``(B, C, 1, 1)``."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), *bottleneck(channels, hidden))


class LocalGlobalGate(nn.Module):
    """``sigmoid(local(x) * pooled(x))``: what is here, weighed by what the whole map says of the channel."""

    def __init__(self, channels: int, *, local: nn.Module, reduction: int) -> None:
        super().__init__()
        self.local = local
        self.pooled = pooled_bottleneck(channels, channels // reduction)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.local(x) * self.pooled(x))
