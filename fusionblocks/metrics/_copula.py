"""Normalised mutual information of small windows, by Fast-FMI's joint distribution in closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad, unfold

from fusionblocks.image.numerics import safe_sqrt
from fusionblocks.metrics._math import safe_ratio

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
        x, y = (_windows(feature, window).split(chunk, dim=1) for feature in pair)
        scores.append(torch.cat([_window_information(a, b) for a, b in zip(x, y)]).mean())
    return torch.stack(scores)


def _windows(feature: Tensor, window: int) -> Tensor:
    # (positions, windows); transposed, as the published code reads a window column by column
    return unfold(feature.mT, window)[0]


def _window_information(a: Tensor, b: Tensor) -> Tensor:
    # a, b: (positions, windows)
    pdf_a, pdf_b = _distribution(a), _distribution(b)
    cdf_a, cdf_b = (pad(pdf.cumsum(0), (0, 0, 1, 0)) for pdf in (pdf_a, pdf_b))  # from 0 to 1
    correlation = _correlation(pdf_a, pdf_b)

    # Frechet's upper bound min(A, B) serves both signs: the lower one, max(A + B - 1, 0), is A - min(A, 1 - B)
    sign = torch.where(correlation < 0, -1.0, 1.0)
    cdf_b = torch.where(correlation < 0, 1 - cdf_b, cdf_b)
    bound = torch.minimum(cdf_a[:, None], cdf_b[None])
    covariance = sign * (bound[1:, 1:].sum((0, 1)) - cdf_a[1:].sum(0) * cdf_b[1:].sum(0))
    share = safe_ratio(correlation * _spread(pdf_a) * _spread(pdf_b), covariance)

    joint = share * sign * bound.diff(dim=0).diff(dim=1) + (1 - share) * pdf_a[:, None] * pdf_b[None]
    # a share above 1 makes some terms negative; of their complex logarithm the published code keeps the real part
    information = _entropy(pdf_a) + _entropy(pdf_b) - _entropy(joint.flatten(0, 1))
    normalized = safe_ratio(2 * information, _entropy(pdf_a) + _entropy(pdf_b))
    return torch.where((a == b).all(0), 1.0, normalized)


def _distribution(x: Tensor) -> Tensor:
    low, high = x.amin(0), x.amax(0)
    spread = torch.where(high > low, (x - low) / torch.where(high > low, high - low, 1), 1)
    return spread / spread.sum(0)


def _correlation(x: Tensor, y: Tensor) -> Tensor:
    x, y = x - x.mean(0), y - y.mean(0)
    energy = (x * x).sum(0) * (y * y).sum(0)
    varies = energy > 1e-28  # a flat window does not vary, whatever rounding leaves of it
    return torch.where(varies, (x * y).sum(0) / torch.where(varies, energy, 1).sqrt(), 0)


def _spread(pdf: Tensor) -> Tensor:
    position = torch.arange(len(pdf), dtype=pdf.dtype, device=pdf.device)[:, None]
    return safe_sqrt((pdf * (position - (pdf * position).sum(0)).square()).sum(0))


def _entropy(probabilities: Tensor) -> Tensor:
    return (0 - torch.xlogy(probabilities, probabilities.abs()).sum(0)) / math.log(2)
