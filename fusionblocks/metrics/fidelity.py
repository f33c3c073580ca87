"""Metrics of nearness to the sources: squared error, signal-to-noise ratio, correlations."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from fusionblocks._support.checks import check_choice
from fusionblocks.image.numerics import pearson, safe_sqrt
from fusionblocks.metrics._inputs import gray_levels

ErrorVariant = Literal["levels", "psfusion"]
RootVariant = Literal["standard", "vifb"]
NoiseVariant = Literal["cddfuse", "vifb", "standard", "psfusion"]


def mean_squared_error(fused: Tensor, infrared: Tensor, visible: Tensor, *, variant: ErrorVariant = "levels") -> Tensor:
    r"""Return MSE, the mean squared difference of gray levels to the two sources, averaged over both.

    :math:`\frac12\left[\overline{(A - F)^2} + \overline{(B - F)^2}\right]` in squared gray levels. From 0 to 65025;
    lower is better, though the mere average of the sources minimises it. Differentiable.

    PSFusion's tables are of pictures in [0, 1]: a 65025th of it.

    Args:
        fused: ``(B, 1, H, W)``, ``uint8`` gray levels or float in [0, 1].
        infrared: As ``fused``.
        visible: As ``fused``.
        variant: ``"levels"``, or ``"psfusion"`` for pictures in [0, 1].

    Returns:
        ``(B,)``, float64.

    Raises:
        TypeError: A picture is not a tensor or has an unfit dtype.
        ValueError: A picture has an unfit shape or values outside [0, 1], or the variant is unknown.

    Reference:
        A review of quality metrics for fused image, 2015.

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import mean_squared_error
        >>> black, white = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
        >>> mean_squared_error(black, black, white)
        tensor([32512.5000], dtype=torch.float64)
    """
    check_choice("variant", variant, get_args(ErrorVariant))
    error = _mean_squared_error(*gray_levels(fused, infrared, visible))
    return error / 255**2 if variant == "psfusion" else error


def root_mean_squared_error(
    fused: Tensor, infrared: Tensor, visible: Tensor, *, variant: RootVariant = "standard"
) -> Tensor:
    r"""Return RMSE, the root of the mean squared difference of gray levels to each source, averaged over both.

    :math:`\frac12\left[\sqrt{\overline{(A - F)^2}} + \sqrt{\overline{(B - F)^2}}\right]`. From 0 to 255; lower is
    better.

    VIFB divides the root of the summed squares by the number of pixels, which is the root of that number less.
    Differentiable, with the derivative 0 where a source equals the result.

    Args:
        fused: ``(B, 1, H, W)``, ``uint8`` gray levels or float in [0, 1].
        infrared: As ``fused``.
        visible: As ``fused``.
        variant: ``"standard"`` or ``"vifb"``, as above.

    Returns:
        ``(B,)``, float64.

    Raises:
        TypeError: A picture is not a tensor or has an unfit dtype.
        ValueError: A picture has an unfit shape or values outside [0, 1], or the variant is unknown.

    Reference:
        VIFB: a visible and infrared image fusion benchmark, 2020.

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import root_mean_squared_error
        >>> black, white = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
        >>> root_mean_squared_error(black, black, white)
        tensor([127.5000], dtype=torch.float64)
    """
    check_choice("variant", variant, get_args(RootVariant))
    f, a, b = gray_levels(fused, infrared, visible)
    roots = [safe_sqrt((source - f).square().mean((1, 2, 3))) for source in (a, b)]
    return (roots[0] + roots[1]) / (2 * (f[0].numel() ** 0.5 if variant == "vifb" else 1))


def peak_signal_to_noise_ratio(
    fused: Tensor, infrared: Tensor, visible: Tensor, *, variant: NoiseVariant = "cddfuse"
) -> Tensor:
    r"""Return PSNR in decibels, the squared peak over the mean squared error of both sources.

    :math:`10 \log_{10}(P^2 / \mathrm{MSE})` with MSE averaged over both sources; higher is better. A result equal to
    both sources has infinity, an entirely black one that differs from them minus infinity under ``"cddfuse"``.
    Differentiable where it is finite.

    Four numbers carry this name: CDDFuse and SMFNet take for :math:`P` the brightest level of the *result*; the usual
    definition (``"standard"``) takes 255; VIFB takes 255 and, for the error of a source, the root of the summed
    squares over the number of pixels, which yields far larger values; PSFusion's tables take 255 for :math:`P` and the
    error of pictures in [0, 1], 48.1 decibels more than the usual one.

    Args:
        fused: ``(B, 1, H, W)``, ``uint8`` gray levels or float in [0, 1].
        infrared: As ``fused``.
        visible: As ``fused``.
        variant: ``"cddfuse"``, ``"vifb"``, ``"standard"`` or ``"psfusion"``, as above.

    Returns:
        ``(B,)``, float64.

    Raises:
        TypeError: A picture is not a tensor or has an unfit dtype.
        ValueError: A picture has an unfit shape or values outside [0, 1], or the variant is unknown.

    Reference:
        A review of quality metrics for fused image, 2015.

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import peak_signal_to_noise_ratio
        >>> infrared, visible = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
        >>> peak_signal_to_noise_ratio(visible, infrared, visible).round(decimals=4)
        tensor([3.0103], dtype=torch.float64)
    """
    check_choice("variant", variant, get_args(NoiseVariant))
    f, a, b = gray_levels(fused, infrared, visible)
    peak = f.flatten(1).amax(1) if variant == "cddfuse" else torch.full_like(f[:, 0, 0, 0], 255)
    if variant == "vifb":
        norm_a, norm_b = (safe_sqrt((s - f).square().flatten(1).sum(1)) for s in (a, b))
        error = (norm_a + norm_b) / (2 * f[0].numel())
    else:
        error = _mean_squared_error(f, a, b) / (255**2 if variant == "psfusion" else 1)
    # without noise the ratio is infinite, whatever the peak: two black pictures do not give 0 / 0
    exact = error == 0
    return torch.where(exact, torch.inf, 10 * torch.log10(peak.square() / torch.where(exact, 1, error)))


def correlation(fused: Tensor, infrared: Tensor, visible: Tensor) -> Tensor:
    r"""Return CC, Pearson's correlation of the result with each source, averaged over both.

    :math:`\frac12\left[r(A, F) + r(B, F)\right]`. From -1 to 1; higher is better. The correlation with a constant
    picture, 0 / 0, is 0 by definition here. Differentiable.

    Args:
        fused: ``(B, 1, H, W)``, ``uint8`` gray levels or float in [0, 1].
        infrared: As ``fused``.
        visible: As ``fused``.

    Returns:
        ``(B,)``, float64.

    Raises:
        TypeError: A picture is not a tensor or has an unfit dtype.
        ValueError: A picture has an unfit shape or values outside [0, 1].

    Reference:
        Pearson's correlation coefficient, averaged over both sources as the evaluator of CDDFuse (2023) does.

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import correlation
        >>> picture = torch.rand(1, 1, 8, 8)
        >>> correlation(picture, picture, 1 - picture).abs() < 1e-6
        tensor([True])
    """
    f, a, b = gray_levels(fused, infrared, visible)
    return (pearson(a, f) + pearson(b, f)) / 2


def sum_of_correlations_of_differences(fused: Tensor, infrared: Tensor, visible: Tensor) -> Tensor:
    r"""Return SCD: how much what the result has beyond one source looks like the other source.

    :math:`r(A, F - B) + r(B, F - A)`, Pearson's correlations. From -2 to 2; higher is better. The correlation with a
    constant picture or difference, 0 / 0, is 0 by definition here. Differentiable.

    All published evaluators agree on it.

    Args:
        fused: ``(B, 1, H, W)``, ``uint8`` gray levels or float in [0, 1].
        infrared: As ``fused``.
        visible: As ``fused``.

    Returns:
        ``(B,)``, float64.

    Raises:
        TypeError: A picture is not a tensor or has an unfit dtype.
        ValueError: A picture has an unfit shape or values outside [0, 1].

    Reference:
        A new image quality metric for image fusion: the sum of the correlations of differences, 2015.

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import sum_of_correlations_of_differences
        >>> infrared, visible = torch.rand(2, 1, 1, 8, 8).div(2)
        >>> sum_of_correlations_of_differences(infrared + visible, infrared, visible).round(decimals=4)
        tensor([2.], dtype=torch.float64)
    """
    f, a, b = gray_levels(fused, infrared, visible)
    return pearson(a, f - b) + pearson(b, f - a)


def _mean_squared_error(f: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return ((a - f).square().flatten(1).mean(1) + (b - f).square().flatten(1).mean(1)) / 2
