"""Structural similarity of the fused picture to its sources, at one scale and at several."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionblocks._support.checks import check_choice, check_number
from fusionblocks.image.filters import add_border, gaussian_kernel
from fusionblocks.image.similarity import K1, K2
from fusionblocks.image.windows import moments, sum_windows
from fusionblocks.metrics._exposure import exposure_similarity
from fusionblocks.metrics._inputs import check_smallest, gray_levels
from fusionblocks.metrics._math import reduce_sources

# exponents of the five scales, from the finest to the coarsest
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_GAUSSIAN_SIDE, _UNIFORM_SIDE = 11, 7
#: At the fifth scale the Gaussian window must still fit.
_SMALLEST_MULTI_SCALE = _GAUSSIAN_SIDE << 4


def structural_similarity(
    fused: Tensor,
    infrared: Tensor,
    visible: Tensor,
    *,
    data_range: float = 255.0,
    window: Literal["uniform", "gaussian"] = "uniform",
    border: Literal["valid", "replicate"] = "valid",
    reduction: Literal["sum", "mean"] = "sum",
) -> Tensor:
    r"""Return SSIM, the structural similarity of the fused picture to both sources.

    Means :math:`\mu`, variances :math:`\sigma^2` and the covariance :math:`\sigma_{fs}` under a sliding window give

    .. math::
        \mathrm{SSIM}(f, s) = \operatorname{mean}
        \frac{(2 \mu_f \mu_s + C_1)(2 \sigma_{fs} + C_2)}
        {(\mu_f^2 + \mu_s^2 + C_1)(\sigma_f^2 + \sigma_s^2 + C_2)}, \qquad
        C_1 = (0.01\,L)^2,\ C_2 = (0.03\,L)^2

    over all windows that fit into the picture, :math:`L` being ``data_range``. Range: -1 to 1 for each source, so -2
    to 2 for the sum. Higher is better. Differentiable.

    Conventions differ in several ways, and none of them is visible in a table:

    - CDDFuse and those who copied its evaluator call scikit-image with its defaults: a uniform window of 7 pixels
      with sample variances (``window="uniform"``), summed over the sources, but on gray levels 0..255 with
      ``data_range=2``, which leaves flat regions almost no tolerance and lowers the value.
    - The paper and VIFB take a Gaussian window of 11 pixels and standard deviation 1.5 with population variances
      (``window="gaussian"``) and ``data_range=255``; VIFB sums over the sources.
    - Others take the mean over the sources. So does the evaluator of PSFusion's authors, which calls MATLAB's function
      with arrays of double: the Gaussian window, ``data_range=1`` for gray levels 0..255, and windows at the picture's
      edge that reach beyond it, where the edge is repeated (``border="replicate"``).

    Args:
        fused: ``(B, 1, H, W)``, ``uint8`` gray levels or float in [0, 1], no smaller than the window.
        infrared: As ``fused``.
        visible: As ``fused``.
        data_range: Difference between the largest and the smallest possible value, in gray levels.
        window: Weights of the sliding window.
        border: Which windows count: those that fit, or one around every pixel.
        reduction: Over the two sources.

    Returns:
        ``(B,)``, float64.

    Raises:
        TypeError: A picture is not a tensor or has another dtype.
        ValueError: Shapes differ, values are out of range, the pictures are smaller than the window, or an option is
            unknown.

    Reference:
        Image Quality Assessment: From Error Visibility to Structural Similarity (2004).

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import structural_similarity
        >>> infrared, visible = torch.rand(2, 1, 1, 16, 16)
        >>> structural_similarity(visible, visible, visible)
        tensor([2.], dtype=torch.float64)
    """
    f, a, b = gray_levels(fused, infrared, visible)
    check_choice("window", window, ("uniform", "gaussian"))
    check_choice("border", border, ("valid", "replicate"))
    check_number("data_range", data_range, above=0)
    side = _UNIFORM_SIDE if window == "uniform" else _GAUSSIAN_SIDE
    pictures = torch.stack((f, a, b))
    if border == "valid":
        check_smallest("SSIM", f, side)
    else:
        pictures = add_border(pictures, side // 2, "replicate")
    return reduce_sources(_mean_similarity(pictures, data_range, window)[0], reduction)


def multi_scale_structural_similarity(
    fused: Tensor,
    infrared: Tensor,
    visible: Tensor,
    *,
    variant: Literal["wang", "smfnet", "psfusion"] = "wang",
    data_range: float = 255.0,
    reduction: Literal["sum", "mean"] = "sum",
) -> Tensor:
    r"""Return MS-SSIM, the structural similarity of the fused picture to both sources at five scales.

    The contrast-structure term :math:`cs = (2 \sigma_{fs} + C_2) / (\sigma_f^2 + \sigma_s^2 + C_2)` of SSIM is
    averaged at each of the first four scales, SSIM itself at the fifth; every scale halves the pictures:

    .. math::
        \mathrm{MS\text{-}SSIM}(f, s) = \mathrm{SSIM}_5^{w_5} \prod_{i=1}^{4} cs_i^{w_i}, \qquad
        w = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)

    with a Gaussian window of 11 pixels and standard deviation 1.5. A negative average, of which there is no such
    power, counts as 0. Range: 0 to 1 for each source. Higher is better. Differentiable where no average is negative.

    ``variant="wang"`` is the definition: windows that fit, pictures halved by averages of 2x2 pixels.
    ``variant="smfnet"`` gives the number that SMFNet's evaluator gives: windows reach beyond the mirrored edge,
    halving is bilinear, and by two slips (the contrast terms of the visible image stay zero, and it is replaced by
    the infrared image after the first scale) the visible image has no part in it; the value is that of the
    infrared image alone, whatever ``reduction`` says.

    ``variant="psfusion"`` is what the evaluator of PSFusion's authors calls MS-SSIM: the measure of multi-exposure
    fusion (Ma et al., 2015) at three scales. In each window of 11x11 pixels the structures of both sources, without
    their means, add up to one that is wanted, with the contrast of the stronger; the result is compared with it by
    :math:`cs`. Its range is 0 to 1; ``reduction`` and ``data_range`` change nothing.

    Args:
        fused: ``(B, 1, H, W)``, ``uint8`` gray levels or float in [0, 1]; at least 176x176 pixels for ``"wang"``,
            44x44 for ``"psfusion"``, 16x16 for ``"smfnet"``.
        infrared: As ``fused``.
        visible: As ``fused``.
        variant: The definition, or what a published evaluator made of it.
        data_range: Difference between the largest and the smallest possible value, in gray levels.
        reduction: Over the two sources.

    Returns:
        ``(B,)``, float64.

    Raises:
        TypeError: A picture is not a tensor or has another dtype.
        ValueError: Shapes differ, values are out of range, the pictures are too small, or an option is unknown.

    Reference:
        Multiscale Structural Similarity for Image Quality Assessment (2003); ``"psfusion"``: Perceptual Quality
        Assessment for Multi-Exposure Image Fusion (2015).

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import multi_scale_structural_similarity
        >>> infrared, visible = torch.rand(2, 1, 1, 176, 192)
        >>> multi_scale_structural_similarity(visible, visible, visible)
        tensor([2.], dtype=torch.float64)
    """
    f, a, b = gray_levels(fused, infrared, visible)
    check_choice("variant", variant, ("wang", "smfnet", "psfusion"))
    check_number("data_range", data_range, above=0)
    if variant == "psfusion":
        check_smallest("MS_SSIM of three scales", f, _GAUSSIAN_SIDE << 2)
        return exposure_similarity(f, torch.stack((a, b)))
    published = variant == "smfnet"
    check_smallest("MS_SSIM" if published else "MS_SSIM of five scales", f, 16 if published else _SMALLEST_MULTI_SCALE)
    pictures = torch.stack((f, a) if published else (f, a, b))
    product: Tensor | float = 1.0
    for scale, weight in enumerate(_WEIGHTS, start=1):
        window_fits = add_border(pictures, _GAUSSIAN_SIDE // 2, "reflect") if published else pictures
        similarity, contrast = _mean_similarity(window_fits, data_range, "gaussian")
        last = scale == len(_WEIGHTS)
        product = product * _power(similarity if last else contrast, weight)
        if not last:
            pictures = _halve(pictures, bilinear=published)
    scores = product + torch.zeros_like(f[..., 0, 0].T)  # a tensor to the type checker too
    return reduce_sources(scores, "sum" if published else reduction)


def _mean_similarity(pictures: Tensor, data_range: float, window: str) -> Tensor:
    """Return SSIM and its contrast-structure term, averaged over each picture: ``(2, P - 1, B)``."""
    if window == "uniform":
        side, correction = _UNIFORM_SIDE, _UNIFORM_SIDE**2 / (_UNIFORM_SIDE**2 - 1)
        kernel = torch.full((side,), 1 / side, dtype=pictures.dtype, device=pictures.device)
    else:
        side, correction = _GAUSSIAN_SIDE, 1.0
        kernel = gaussian_kernel(1.5, side, dtype=pictures.dtype, device=pictures.device)
    score = partial(_similarity, kernel=kernel, correction=correction, data_range=data_range)
    rows, columns = (extent - side + 1 for extent in pictures.shape[-2:])
    return sum_windows(score, pictures, side) / (rows * columns)


def _similarity(pictures: Tensor, kernel: Tensor, correction: float, data_range: float) -> Tensor:
    mean, variance, covariance = moments(pictures, kernel)
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    contrast = (2 * correction * covariance + c2) / (correction * (variance[:1] + variance[1:]) + c2)
    square = mean * mean
    luminance = (2 * mean[:1] * mean[1:] + c1) / (square[:1] + square[1:] + c1)
    return torch.stack([term.sum(dim=(-3, -2, -1)) for term in (luminance * contrast, contrast)])


def _power(base: Tensor, exponent: float) -> Tensor:
    """Return the power of a positive base and 0 of any other, with a gradient of 0 there."""
    positive = base > 0
    return torch.where(positive, base.masked_fill(~positive, 1.0) ** exponent, 0.0)


def _halve(pictures: Tensor, bilinear: bool) -> Tensor:
    planes = pictures.flatten(0, 1)
    if bilinear:
        size = [max(extent // 2, 1) for extent in planes.shape[-2:]]
        planes = F.interpolate(planes, size=size, mode="bilinear", align_corners=False)
    else:
        planes = F.avg_pool2d(planes, 2)
    return planes.unflatten(0, pictures.shape[:2])
