"""What several metrics share: quotients with a defined value, derivatives, choices by name, sums over sources."""

from __future__ import annotations

import torch
from torch import Tensor


def safe_ratio(numerator: Tensor, denominator: Tensor, *, otherwise: float = 0.0) -> Tensor:
    """Return the quotient, ``otherwise`` where the denominator is 0, with finite derivatives everywhere."""
    defined = denominator != 0
    return torch.where(defined, numerator / torch.where(defined, denominator, 1), otherwise)


def central_differences(x: Tensor, dim: int) -> Tensor:
    """Return the derivative along ``dim``: central differences inside, one-sided ones at both ends."""
    size = x.shape[dim]
    first = x.narrow(dim, 1, 1) - x.narrow(dim, 0, 1)
    last = x.narrow(dim, size - 1, 1) - x.narrow(dim, size - 2, 1)
    inner = (x.narrow(dim, 2, size - 2) - x.narrow(dim, 0, size - 2)) / 2
    return torch.cat([first, inner, last], dim)


def reduce_sources(scores: Tensor, reduction: str) -> Tensor:
    """Return the sum or the mean over the two sources of ``(2, B)``."""
    if reduction == "sum":
        return scores.sum(0)
    if reduction == "mean":
        return scores.mean(0)
    raise ValueError(f"reduction must be 'sum' or 'mean', got {reduction!r}")
