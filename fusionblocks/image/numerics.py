"""What metrics and losses share: square roots and correlations with a value and a derivative at a constant picture."""

from __future__ import annotations

import torch
from torch import Tensor

#: Variance (in squared gray levels) below which a picture counts as constant: what float64 rounding leaves of 0.
CONSTANT = 1e-20


def safe_sqrt(x: Tensor) -> Tensor:
    """Return the square root, whose derivative at 0 is taken as 0 and not as infinity."""
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1).sqrt(), 0)


def pearson(x: Tensor, y: Tensor) -> Tensor:
    """Return Pearson's correlation over all but the first dimension, 0 where one of the two is constant."""
    x, y = x.flatten(1), y.flatten(1)
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    covariance, variance_x, variance_y = (torch.linalg.vecdot(*pair) / x.shape[1] for pair in ((x, y), (x, x), (y, y)))
    varies = (variance_x > CONSTANT) & (variance_y > CONSTANT)
    return torch.where(varies, covariance / torch.where(varies, variance_x * variance_y, 1).sqrt(), 0)
