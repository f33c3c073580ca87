"""Noise schedules of diffusion networks, by name."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fusionblocks.models.base import closest

SCHEDULES = ("cosine", "linear")


def beta_schedule(name: str, steps: int, start: float = 1e-6, end: float = 1e-2) -> Tensor:
    """Return the noise variance that each diffusion step adds.

    Args:
        name: ``"linear"`` (from ``start`` to ``end``) or ``"cosine"`` (whose cumulative product is a squared cosine;
            ``start`` and ``end`` play no part).
        steps: Number of steps.
        start: Variance of the first step, in (0, 1).
        end: Variance of the last step, in [start, 1).

    Returns:
        Betas ``(steps,)`` in float64: at the first steps ``1 - alpha_bar`` is about 1e-6, which float32 blurs.

    Raises:
        ValueError: If the name is unknown, ``steps`` is no positive integer, or not ``0 < start <= end < 1``.

    Reference:
        *Denoising Diffusion Probabilistic Models* (2020) for linear, *Improved Denoising Diffusion Probabilistic
        Models* (2021) for cosine; *SGDFuse* (2025), function ``make_beta_schedule``.

    Example:
        >>> from fusionblocks.models.schedules import beta_schedule
        >>> beta_schedule("linear", 3, start=0.1, end=0.3)
        tensor([0.1000, 0.2000, 0.3000], dtype=torch.float64)
    """
    if name not in SCHEDULES:
        raise ValueError(f"unknown beta schedule {name!r}{closest(str(name), list(SCHEDULES))}; known: {SCHEDULES}")
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"steps must be a positive integer, got {steps!r}")
    if not 0 < start <= end < 1:
        raise ValueError(f"start and end must satisfy 0 < start <= end < 1, got start={start}, end={end}")
    if name == "linear":
        return torch.linspace(start, end, steps, dtype=torch.float64)
    offset, largest = 8e-3, 0.999  # the offset keeps the first betas away from 0, the limit the last away from 1
    time = torch.arange(steps + 1, dtype=torch.float64) / steps
    remaining = torch.cos((time + offset) / (1 + offset) * math.pi / 2).square()
    return (1 - remaining[1:] / remaining[:-1]).clamp(max=largest)


def noise_levels(betas: Tensor) -> Tensor:
    """Return the signal's share ``sqrt(alpha_bar)`` after each step, on which SGDFuse's U-Net is conditioned.

    Args:
        betas: Variances ``(steps,)``, from :func:`beta_schedule`.

    Returns:
        ``(steps,)``, falling from nearly 1 (hardly any noise) towards 0, in the dtype of ``betas``.

    Example:
        >>> from fusionblocks.models.schedules import beta_schedule, noise_levels
        >>> round(float(noise_levels(beta_schedule("linear", 1000))[-1]) ** 2, 4)
        0.0066
    """
    return torch.cumprod(1 - betas, dim=0).sqrt()
