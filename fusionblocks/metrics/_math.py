"""What several metrics share: square roots and correlations with a defined value, gradients, choices by name."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

#: Variance (in squared gray levels) below which a picture counts as constant: what float64 rounding leaves of 0.
CONSTANT = 1e-20


def check_choice(name: str, value: object, choices: object) -> None:
    """Raise a ``ValueError`` that names the argument unless ``value`` is one of the strings of a ``Literal``."""
    accepted = get_args(choices)
    if value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, accepted))}, got {value!r}")


def safe_sqrt(x: Tensor) -> Tensor:
    """Return the square root, whose derivative at 0 is taken as 0 and not as infinity."""
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1).sqrt(), 0)


def safe_ratio(numerator: Tensor, denominator: Tensor, *, otherwise: float = 0.0) -> Tensor:
    """Return the quotient, ``otherwise`` where the denominator is 0, with finite derivatives everywhere."""
    defined = denominator != 0
    return torch.where(defined, numerator / torch.where(defined, denominator, 1), otherwise)


def pearson(x: Tensor, y: Tensor) -> Tensor:
    """Return Pearson's correlation over all but the first dimension, 0 where one of the two is constant."""
    x, y = x.flatten(1), y.flatten(1)
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    covariance, variance_x, variance_y = (torch.linalg.vecdot(*pair) / x.shape[1] for pair in ((x, y), (x, x), (y, y)))
    varies = (variance_x > CONSTANT) & (variance_y > CONSTANT)
    return torch.where(varies, covariance / torch.where(varies, variance_x * variance_y, 1).sqrt(), 0)


def central_differences(x: Tensor, dim: int) -> Tensor:
    """Return the derivative along ``dim``: central differences inside, one-sided ones at both ends."""
    size = x.shape[dim]
    first = x.narrow(dim, 1, 1) - x.narrow(dim, 0, 1)
    last = x.narrow(dim, size - 1, 1) - x.narrow(dim, size - 2, 1)
    inner = (x.narrow(dim, 2, size - 2) - x.narrow(dim, 0, size - 2)) / 2
    return torch.cat([first, inner, last], dim)
