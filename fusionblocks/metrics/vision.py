"""Metrics made of models of human vision: contrast sensitivity, masking, attention to strong edges."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionblocks.image.filters import add_border, sobel
from fusionblocks.image.windows import filter_valid
from fusionblocks.metrics._inputs import check_smallest, gray_levels


def chen_blum(fused: Tensor, infrared: Tensor, visible: Tensor) -> Tensor:
    r"""Return Q_CB, how well the fused picture preserves the contrast that an eye perceives in the sources.

    Each picture, stretched to the levels 0..255, passes a difference of Gaussians in the frequency domain, the
    contrast sensitivity :math:`S(r) = e^{-(r / 15.387)^2} - 0.7622\,e^{-(r / 1.3456)^2}` with :math:`r` in units of
    15 cycles per picture. Peli's contrast between two Gaussian blurs, of standard deviations 2 and 4, and a masking
    function make of it what is perceived:

    .. math::
        C = \left| \frac{G_2 * I}{G_4 * I} - 1 \right|, \qquad C' = \frac{C^3}{C^2 + 10^{-4}}

    Preserved is :math:`Q_s = \min(C'_f, C'_s) / \max(C'_f, C'_s)`; the metric is the mean over the picture of
    :math:`\lambda Q_a + (1 - \lambda) Q_b` with :math:`\lambda = C_a'^2 / (C_a'^2 + C_b'^2)`.

    Range: 0 to 1. Higher is better. Where no picture has contrast, it is preserved; a constant picture has none
    anywhere (the published code divides 0 by 0). VIFB and the MATLAB toolbox behind it have this convention. Not
    differentiable: stretched levels are rounded.

    Args:
        fused: ``(B, 1, H, W)``, ``uint8`` gray levels or float in [0, 1].
        infrared: As ``fused``.
        visible: As ``fused``.

    Returns:
        ``(B,)``, float64.

    Raises:
        TypeError: A picture is not a tensor or has another dtype.
        ValueError: Shapes differ or values are out of range.

    Reference:
        A New Automated Quality Assessment Algorithm for Image Fusion (2009).

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import chen_blum
        >>> infrared, visible = torch.rand(2, 1, 1, 16, 16)
        >>> chen_blum(visible, visible, visible)
        tensor([1.], dtype=torch.float64)
    """
    pictures = _stretch(torch.stack(gray_levels(fused, infrared, visible)))
    radius = _cycles(pictures) / 15
    sensitivity = torch.exp(-((radius / 15.387) ** 2)) - 0.7622 * torch.exp(-((radius / 1.3456) ** 2))
    pictures = add_border(_filter_frequencies(pictures, sensitivity), 15, "zero")
    near, far = (filter_valid(pictures, _gaussian_samples(sigma, pictures)) for sigma in (2.0, 4.0))
    black = far == 0
    contrast = torch.where(black, 0.0, near / far.masked_fill(black, 1.0) - 1).abs()
    # strong contrasts mask weaker ones
    perceived = contrast**3 / (contrast**2 + 1e-4)
    kept, source = perceived[:1], perceived[1:]
    stronger = torch.maximum(kept, source)
    none = stronger == 0
    preserved = torch.where(none, 1.0, torch.minimum(kept, source) / stronger.masked_fill(none, 1.0))
    square = source * source
    total = square.sum(0, keepdim=True)
    none = total == 0
    saliency = torch.where(none, 0.5, square / total.masked_fill(none, 1.0))
    return (saliency * preserved).sum(0).mean(dim=(-3, -2, -1))


def chen_varshney(
    fused: Tensor, infrared: Tensor, visible: Tensor, *, window: int = 16, exponent: float = 5.0
) -> Tensor:
    r"""Return Q_CV, the error of the fused picture that an eye perceives, weighted by the sources' salient regions.

    The pictures are stretched to the levels 0..255. The difference of the fused picture from a source passes the
    contrast sensitivity of Mannos and Sakrison, :math:`S(r) = 2.6\,(0.0192 + 0.144 r)\,e^{-(0.144 r)^{1.1}}` with
    :math:`r` in units of 4 cycles per picture. In regions of 16x16 pixels its mean square :math:`D` is weighted by
    the sum of the source's Sobel strengths to the power :math:`\alpha` (``exponent``):

    .. math::
        Q_{CV} = \frac{\sum (\lambda_a D_a + \lambda_b D_b)}{\sum (\lambda_a + \lambda_b)}, \qquad
        \lambda_s = \sum_{\text{region}} g_s^{\alpha}

    Range: 0 and up, mostly tens to thousands. Lower is better. A last region that reaches beyond the picture is
    filled with zeros. Two constant sources, which have no salient region (the published code divides 0 by 0),
    weigh alike everywhere. VIFB and the MATLAB toolbox behind it have this convention; some tables print a tenth of
    the value. Not differentiable: stretched levels are rounded.

    Args:
        fused: ``(B, 1, H, W)``, ``uint8`` gray levels or float in [0, 1], no smaller than a region.
        infrared: As ``fused``.
        visible: As ``fused``.
        window: Side of a region in pixels.
        exponent: How much strong edges outweigh weak ones, positive.

    Returns:
        ``(B,)``, float64.

    Raises:
        TypeError: A picture is not a tensor or has another dtype.
        ValueError: Shapes differ, values are out of range, the pictures are smaller than a region, or ``window`` or
            ``exponent`` is not positive.

    Reference:
        A Human Perception Inspired Quality Metric for Image Fusion Based on Regional Information (2007).

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import chen_varshney
        >>> infrared, visible = torch.rand(2, 1, 1, 32, 32)
        >>> chen_varshney(visible, visible, visible)
        tensor([0.], dtype=torch.float64)
    """
    f, a, b = gray_levels(fused, infrared, visible)
    if not isinstance(window, int) or window < 1:
        raise ValueError(f"window must be a positive number of pixels, got {window!r}")
    if not (math.isfinite(exponent) and exponent > 0):
        raise ValueError(f"exponent must be a positive number, got {exponent!r}")
    check_smallest("Qcv", f, window)
    pictures = _stretch(torch.stack((f, a, b)))
    source = pictures[1:]
    across, down = sobel(source, border="zero")
    saliency = _region_means((across * across + down * down) ** (exponent / 2), window)
    radius = 0.144 * _cycles(pictures) / 4
    sensitivity = 2.6 * (0.0192 + radius) * torch.exp(-(radius**1.1))
    error = _region_means(_filter_frequencies(source - pictures[:1], sensitivity) ** 2, window)
    total = saliency.sum(dim=(0, -3, -2, -1))
    flat = (total == 0).view(-1, 1, 1, 1)
    saliency = torch.where(flat, 1.0, saliency)
    return (saliency * error).sum(dim=(0, -3, -2, -1)) / saliency.sum(dim=(0, -3, -2, -1))


def _stretch(pictures: Tensor) -> Tensor:
    """Stretch each picture to the whole levels 0..255; a constant one becomes 0."""
    low, high = pictures.amin(dim=(-2, -1), keepdim=True), pictures.amax(dim=(-2, -1), keepdim=True)
    span = (high - low).masked_fill(high == low, 1.0)
    return ((pictures - low) / span * 255 + 0.5).floor()


def _cycles(pictures: Tensor) -> Tensor:
    """Return how many cycles each frequency of the real transform makes over the picture, ``(H, W // 2 + 1)``."""
    height, width = pictures.shape[-2:]
    down = torch.fft.fftfreq(height, 1 / height, dtype=pictures.dtype, device=pictures.device)
    across = torch.fft.rfftfreq(width, 1 / width, dtype=pictures.dtype, device=pictures.device)
    return torch.hypot(down.unsqueeze(1), across)


def _filter_frequencies(pictures: Tensor, gain: Tensor) -> Tensor:
    size = pictures.shape[-2:]
    return torch.fft.irfft2(torch.fft.rfft2(pictures) * gain, s=size)


def _gaussian_samples(sigma: float, like: Tensor) -> Tensor:
    """Return 31 samples of a Gaussian density, the root of what the published kernel holds; not normalised."""
    offset = torch.arange(-15, 16, dtype=like.dtype, device=like.device)
    return torch.exp(-0.5 * (offset / sigma) ** 2) / (math.sqrt(2 * math.pi) * sigma)


def _region_means(x: Tensor, side: int) -> Tensor:
    """Return the means over regions, those that reach beyond the picture filled with zeros."""
    height, width = x.shape[-2:]
    planes = F.pad(x.flatten(0, 1), (0, -width % side, 0, -height % side))
    return F.avg_pool2d(planes, side).unflatten(0, x.shape[:2])
