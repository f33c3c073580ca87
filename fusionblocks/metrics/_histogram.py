"""Histograms of whole gray levels and their entropies."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LEVELS = 256


def histogram(levels: Tensor) -> Tensor:
    """Return the probabilities ``(B, 256)`` of the gray levels ``(B, ...)``, rounded to the nearest one."""
    return _counts(levels.detach().flatten(1).round().long(), LEVELS)


def joint_histogram(first: Tensor, second: Tensor) -> Tensor:
    """Return the probabilities ``(B, 256, 256)`` of the pairs of gray levels of two pictures ``(B, ...)``."""
    pairs = first.detach().round() * LEVELS + second.detach().round()
    return _counts(pairs.flatten(1).long(), LEVELS * LEVELS).unflatten(1, (LEVELS, LEVELS))


def shannon(probabilities: Tensor, *, unit: str = "bits") -> Tensor:
    """Return the entropy ``(B,)`` of distributions ``(B, ...)``, in ``"bits"`` or ``"nats"``."""
    nats = 0 - torch.xlogy(probabilities, probabilities).flatten(1).sum(1)  # a minus sign would make -0.0 of 0
    return (nats / math.log(2) if unit == "bits" else nats).clamp_min(0)


def stretch(levels: Tensor) -> Tensor:
    """Return each picture spread to 0..255 and rounded (half away from zero); a constant one becomes 0."""
    low, high = (bound(levels.flatten(1), dim=1)[:, None, None, None] for bound in (torch.amin, torch.amax))
    span = high - low
    return ((levels - low) / torch.where(span > 0, span, 1) * (LEVELS - 1) + 0.5).floor()


def _counts(indices: Tensor, bins: int) -> Tensor:
    batch, pixels = indices.shape
    offsets = torch.arange(batch, device=indices.device)[:, None] * bins
    counts = torch.bincount((indices + offsets).flatten(), minlength=batch * bins)
    return counts.view(batch, bins).to(torch.float64) / pixels
