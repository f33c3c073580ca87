"""Visual information fidelity: how much of what an eye could learn from the sources the fused picture still tells."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor

from fusionblocks.image.filters import gaussian_kernel
from fusionblocks.metrics._inputs import check_smallest, gray_levels
from fusionblocks.metrics._local import filter_valid, moments, reduce_sources, sum_windows

# variance of the eye's own noise, and the variance below which a window counts as flat
_NOISE, _FLAT = 2.0, 1e-10
#: At the fourth scale a window of three pixels must still fit.
_SMALLEST = 41


def visual_information_fidelity(
    fused: Tensor, infrared: Tensor, visible: Tensor, *, reduction: Literal["sum", "mean"] = "sum"
) -> Tensor:
    r"""Return VIF, the visual information fidelity of the fused picture to both sources.

    The pixel-domain form at four scales, windows of 17, 9, 5 and 3 pixels. Under each window the fused picture is
    taken as the source times a gain :math:`g` plus noise of variance :math:`\sigma_v^2`, and the information that
    reaches the eye through it is compared to what the source itself would bring, the eye adding noise of variance 2:

    .. math::
        \mathrm{VIF} = \sum_{\text{source}}
        \frac{\sum \log\bigl(1 + g^2 \sigma_s^2 / (\sigma_v^2 + 2)\bigr)}{\sum \log(1 + \sigma_s^2 / 2)}

    Range: 0 and up, the sum usually below 2; a source compared with itself scores 1, a copy of higher contrast more.
    Higher is better. A source without any detail (constant) scores 1, as published. Differentiable.

    The published evaluators for fusion add up both sources (``"sum"``); their name for it is VIF or VIFF, though
    VIFF of the literature is another measure.

    Args:
        fused: ``(B, 1, H, W)``, ``uint8`` gray levels or float in [0, 1], at least 41x41 pixels.
        infrared: As ``fused``.
        visible: As ``fused``.
        reduction: Over the two sources.

    Returns:
        ``(B,)``, float64.

    Raises:
        TypeError: A picture is no tensor or of another dtype.
        ValueError: Shapes differ, values are out of range, the pictures are too small, or ``reduction`` is unknown.

    Reference:
        Image Information and Visual Quality (2006).

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import visual_information_fidelity
        >>> infrared, visible = torch.rand(2, 1, 1, 48, 64)
        >>> visual_information_fidelity(visible, visible, visible)
        tensor([2.0000], dtype=torch.float64)
    """
    f, a, b = gray_levels(fused, infrared, visible)
    check_smallest("VIF", f, _SMALLEST)
    return reduce_sources(_fidelities(torch.stack((f, a, b))), reduction)


def _fidelities(pictures: Tensor) -> Tensor:
    """Return the fidelity of the first picture to each of the others, ``(P, B, 1, H, W)`` to ``(P - 1, B)``."""
    # variances do not depend on the mean: without it they are exact to more digits, and exactly 0 for a constant
    pictures = pictures - pictures.mean(dim=(-2, -1), keepdim=True)
    information = pictures.new_zeros(())
    for scale in range(1, 5):
        side = 2 ** (5 - scale) + 1
        window = gaussian_kernel(side / 5, side, dtype=pictures.dtype, device=pictures.device)
        if scale > 1:
            pictures = filter_valid(pictures, window, stride=2)
        information = information + sum_windows(partial(_information, window=window), pictures, side)
    kept, available = information
    constant = available == 0
    return torch.where(constant, 1.0, kept / available.masked_fill(constant, 1.0))


def _information(pictures: Tensor, window: Tensor) -> Tensor:
    """Return the information that the first picture keeps of each other, and what that one has: ``(2, P - 1, B)``."""
    _, variance, covariance = moments(pictures, window)
    variance = variance * (variance >= _FLAT)
    spread, source = variance[:1], variance[1:]
    # a window that tells nothing, or tells it inverted, keeps no information
    gain = (covariance * (spread > 0) * (source > 0)).clamp_min(0) / (source + _FLAT)
    noise = (spread - gain * covariance).clamp_min(_FLAT)
    kept, available = gain * gain * source / (noise + _NOISE), source / _NOISE
    return torch.stack([information.log1p().sum(dim=(-3, -2, -1)) for information in (kept, available)])
