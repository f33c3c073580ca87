"""Normalised mutual information of small windows, by Fast-FMI's joint distribution in closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import unfold

from fusionblocks.metrics._math import safe_ratio, safe_sqrt

#: Windows treated at a time, 81 joint probabilities each: what stays near a CPU's cache, what occupies a GPU.
_CHUNK_CPU, _CHUNK_GPU = 1 << 12, 1 << 18


def windowed_information(first: Tensor, second: Tensor, *, window: int) -> Tensor:
    """Return the mean normalised mutual information ``(B,)`` of all windows of two feature maps ``(B, 1, H, W)``.

    A window's features, spread to [0, 1] and divided by their sum, serve as a distribution over its positions. Of the
    joint distribution of two windows Fast-FMI keeps the marginals and the correlation: a mixture of independence and
    of the Frechet bound on the correlation's side.
    """
    chunk = _CHUNK_CPU if first.device.type == "cpu" else _CHUNK_GPU
    scores = []
    for pair in zip(first.split(1), second.split(1)):  # one picture at a time: its windows are nine times its size
        x, y = (_windows(feature, window).split(chunk) for feature in pair)
        scores.append(torch.cat([_window_information(a, b) for a, b in zip(x, y)]).mean())
    return torch.stack(scores)


def _windows(feature: Tensor, window: int) -> Tensor:
    # transposed, as the published code reads a window column by column
    return unfold(feature.mT, window).transpose(1, 2).flatten(0, 1)


def _window_information(a: Tensor, b: Tensor) -> Tensor:
    # a, b: (windows, positions)
    same = (a == b).all(1)
    pdf_a, pdf_b = _distribution(a), _distribution(b)
    cdf_a, cdf_b = pdf_a.cumsum(1), pdf_b.cumsum(1)
    correlation = _correlation(pdf_a, pdf_b)
    positive = (correlation >= 0)[:, None, None]

    # joint distribution functions: the Frechet bound on the correlation's side, and independence
    rows, columns = cdf_b[:, :, None], cdf_a[:, None, :]
    bound = torch.where(positive, torch.minimum(rows, columns), (rows + columns - 1).clamp_min(0))
    covariance = (bound - rows * columns).sum((1, 2))
    share = safe_ratio(correlation * _spread(pdf_a) * _spread(pdf_b), covariance)[:, None, None]

    joint = share * _density(bound) + (1 - share) * pdf_b[:, :, None] * pdf_a[:, None, :]
    # a share above 1 makes some terms negative; of their complex logarithm the published code keeps the real part
    joint_entropy = -torch.xlogy(joint, joint.abs()).sum((1, 2)) / math.log(2)
    marginal = sum(-torch.xlogy(pdf, pdf).sum(1) / math.log(2) for pdf in (pdf_a, pdf_b))
    information = safe_ratio(2 * (marginal - joint_entropy), torch.as_tensor(marginal))
    return torch.where(same, 1.0, information)


def _distribution(x: Tensor) -> Tensor:
    low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    spread = torch.where(high > low, (x - low) / torch.where(high > low, high - low, 1), 1)
    return spread / spread.sum(1, keepdim=True)


def _correlation(x: Tensor, y: Tensor) -> Tensor:
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    energy = (x * x).sum(1) * (y * y).sum(1)
    return torch.where(energy > 1e-28, (x * y).sum(1) / torch.where(energy > 1e-28, energy, 1).sqrt(), 0)


def _spread(pdf: Tensor) -> Tensor:
    position = torch.arange(1, pdf.shape[1] + 1, dtype=pdf.dtype, device=pdf.device)
    mean = (pdf * position).sum(1, keepdim=True)
    return safe_sqrt((pdf * (position - mean).square()).sum(1))


def _density(cdf: Tensor) -> Tensor:
    cdf = torch.nn.functional.pad(cdf, (1, 0, 1, 0))
    return cdf.diff(dim=1).diff(dim=2)
