"""Round trips through invertible blocks, fresh and after training."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def halves(channels: int, batch: int = 2, height: int = 9, width: int = 12) -> tuple[Tensor, Tensor]:
    """Two random float64 halves of a feature map of ``channels`` channels."""
    return torch.randn(2, batch, channels // 2, height, width, dtype=torch.float64).unbind()


def train(block: nn.Module, channels: int, steps: int = 8) -> None:
    """Take optimiser steps towards random targets, large enough to move every weight."""
    optimizer = torch.optim.Adam(block.parameters(), lr=2e-2)
    inputs, targets = halves(channels), halves(channels)
    before = [parameter.detach().clone() for parameter in block.parameters()]
    for _ in range(steps):
        optimizer.zero_grad()
        outputs = block(*inputs)
        sum((out - target).square().mean() for out, target in zip(outputs, targets)).backward()
        optimizer.step()
    for parameter, old in zip(block.parameters(), before):
        assert not torch.equal(parameter, old)


def round_trip_error(block: nn.Module, inputs: tuple[Tensor, Tensor]) -> float:
    """The largest difference between the inputs and what ``inverse`` restores, in both orders of application."""
    with torch.no_grad():
        restored = block.inverse(*block(*inputs))
        repeated = block(*block.inverse(*inputs))
    return max((out - x).abs().max().item() for result in (restored, repeated) for out, x in zip(result, inputs))
