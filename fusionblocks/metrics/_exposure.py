"""The structure that several pictures ask a fused one to have, as measured for multi-exposure fusion."""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionblocks.image.filters import add_border, gaussian_kernel
from fusionblocks.image.numerics import safe_sqrt
from fusionblocks.image.windows import moments, sum_windows

_SIDE, _PIXELS = 11, 121
_WEIGHTS = (0.0448, 0.2856, 0.3001)
#: The tolerance of contrast, and what keeps a flat window's contrast from 0.
_TOLERANCE, _LEAST = (0.03 * 255) ** 2, 0.001
_MOST_SELECTIVE = 10.0


def exposure_similarity(fused: Tensor, sources: Tensor) -> Tensor:
    """Return the product over three scales ``(B,)`` of gray levels ``(B, 1, H, W)`` and ``(2, B, 1, H, W)``.

    A negative mean at a scale, of which there is no such power, counts as 0.
    """
    pictures = torch.cat([fused[None], sources])
    kernels = (
        torch.full((_SIDE,), 1 / _SIDE, dtype=pictures.dtype, device=pictures.device),
        gaussian_kernel(1.5, _SIDE, dtype=pictures.dtype, device=pictures.device),
    )
    product = torch.ones_like(fused[:, 0, 0, 0])
    for scale, weight in enumerate(_WEIGHTS):
        if scale:
            pictures = _halve(pictures)
        rows, columns = (extent - _SIDE + 1 for extent in pictures.shape[-2:])
        score = partial(_similarity, kernels=kernels)
        mean = sum_windows(score, pictures, _SIDE) / (rows * columns)
        positive = mean > 0
        product = product * torch.where(positive, mean.masked_fill(~positive, 1) ** (weight / sum(_WEIGHTS)), 0)
    return product


def _similarity(pictures: Tensor, kernels: tuple[Tensor, Tensor]) -> Tensor:
    """Return the sum over all windows of how like the fused picture is to what its sources ask for."""
    uniform, gaussian = kernels
    _, variances, (covariance,) = moments(pictures[1:], uniform)
    energies = (_PIXELS * variances).clamp_min(0)
    contrasts = safe_sqrt(energies)
    common = safe_sqrt((_PIXELS * (variances.sum(0) + 2 * covariance)).clamp_min(0))

    # sources that agree on the structure share it; where they do not, the stronger one has its way
    tiny = torch.finfo(pictures.dtype).eps
    agreement = ((common + tiny) / (contrasts.sum(0) + tiny)).clamp(max=1 - tiny)
    selectivity = torch.tan(agreement * (math.pi / 2)).clamp(max=_MOST_SELECTIVE)
    contrasts = contrasts + _LEAST
    shares = (contrasts / _SIDE) ** selectivity + tiny
    parts = shares / shares.sum(0) / contrasts  # of each source's structure, whose norm they make one

    norm = parts[0] ** 2 * energies[0] + parts[1] ** 2 * energies[1] + 2 * parts.prod(0) * _PIXELS * covariance
    some = norm > 0
    gain = torch.where(some, contrasts.amax(0) * norm.masked_fill(~some, 1).rsqrt(), 1)
    parts = parts * gain

    _, variances, covariances = moments(pictures, gaussian)
    (between,) = moments(pictures[1:], gaussian)[2]
    wanted = parts[0] ** 2 * variances[1] + parts[1] ** 2 * variances[2] + 2 * parts.prod(0) * between
    shared = (parts * covariances).sum(0)
    return ((2 * shared + _TOLERANCE) / (wanted + variances[0] + _TOLERANCE)).sum(dim=(-3, -2, -1))


def _halve(pictures: Tensor) -> Tensor:
    """Return means of 2x2 pixels; of a last odd row or column, those of it alone."""
    height, width = pictures.shape[-2:]
    planes = add_border(pictures, 1, "replicate")[..., 1 : 1 + height + height % 2, 1 : 1 + width + width % 2]
    return F.avg_pool2d(planes.flatten(0, 1), 2).unflatten(0, pictures.shape[:2])
