"""Visual information fidelity in the pixel domain: the measure itself, for the metric and for the loss."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from fusionblocks.image.filters import gaussian_kernel
from fusionblocks.image.windows import filter_valid, moments, sum_windows

# variance of the eye's own noise, and the variance below which a window counts as flat
_NOISE, _FLAT = 2.0, 1e-10
#: At the fourth scale a window of three pixels must still fit.
SMALLEST = 41


def fidelities(pictures: Tensor, *, saturated: bool = False) -> Tensor:
    """Return the fidelity of the first picture to each of the others, ``(P, B, 1, H, W)`` to ``(P - 1, B)``.

    Pictures are float64 gray levels 0..255: the constants are variances of gray levels. With ``saturated`` the products
    of the first scale stop at 255, as those of 8-bit arrays do.
    """
    levels = pictures
    # variances do not depend on the mean: without it they are exact to more digits, and exactly 0 for a constant
    pictures = pictures - pictures.mean(dim=(-2, -1), keepdim=True)
    information = pictures.new_zeros(())
    for scale in range(1, 5):
        side = 2 ** (5 - scale) + 1
        window = gaussian_kernel(side / 5, side, dtype=pictures.dtype, device=pictures.device)
        if scale > 1:
            pictures = filter_valid(pictures, window, stride=2)
        if saturated and scale == 1:
            information = information + _saturated_information(levels.round(), window)
            continue
        information = information + sum_windows(partial(_information, window=window), pictures, side)
    kept, available = information
    constant = available == 0
    return torch.where(constant, 1.0, kept / available.masked_fill(constant, 1.0))


def _information(pictures: Tensor, window: Tensor) -> Tensor:
    """Return the information that the first picture keeps of each other, and what that one has: ``(2, P - 1, B)``."""
    _, variance, covariance = moments(pictures, window)
    return _of_moments(variance, covariance)


def _saturated_information(levels: Tensor, window: Tensor) -> Tensor:
    """Return the same of whole gray levels whose products stop at 255."""
    means = filter_valid(levels, window)
    squares = filter_valid(levels.square().clamp_max(255), window)
    products = filter_valid((levels[:1] * levels[1:]).clamp_max(255), window)
    return _of_moments(squares - means.square(), products - means[:1] * means[1:])


def _of_moments(variance: Tensor, covariance: Tensor) -> Tensor:
    """Return the information of windows with such variances and covariances."""
    variance = variance * (variance >= _FLAT)
    spread, source = variance[:1], variance[1:]
    # a window that tells nothing, or tells it inverted, keeps no information
    gain = (covariance * (spread > 0) * (source > 0)).clamp_min(0) / (source + _FLAT)
    noise = (spread - gain * covariance).clamp_min(_FLAT)
    kept, available = gain * gain * source / (noise + _NOISE), source / _NOISE
    return torch.stack([information.log1p().sum(dim=(-3, -2, -1)) for information in (kept, available)])
