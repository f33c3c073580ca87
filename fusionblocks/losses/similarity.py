"""Structure and information: SSIM, the sum of the correlations of differences, visual information fidelity."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fusionblocks._support.checks import check_number, check_whole
from fusionblocks.image.checks import check_picture
from fusionblocks.image.fidelity import SMALLEST, fidelities
from fusionblocks.image.numerics import pearson
from fusionblocks.image.similarity import ssim
from fusionblocks.losses._inputs import alike, check_pictures, full_precision, gray, visible_like
from fusionblocks.losses._modules import as_module

#: The range below which the constants of SSIM are so small that float32's rounding would decide about flat windows.
_FINE = 0.1


@full_precision
def ssim_loss(
    image: Tensor,
    reference: Tensor,
    *,
    window_size: int = 11,
    sigma: float = 1.5,
    padding: Literal["valid", "reflect", "zero"] = "valid",
    data_range: float = 1.0,
) -> Tensor:
    r"""Return one less the structural similarity of two pictures.

    .. math:: 1 - \operatorname{mean}\,\mathrm{SSIM}(X, Y)

    An even window, as SGAFusion's 48 pixels, has its centre right of the middle. Its first sample has no counterpart
    and is dropped, with the first row and column of pixels that it would reach; there it weighs less than 1e-24.
    SMFNet halves the value: take half its weight.

    Args:
        image: ``(B, C, H, W)``, about [0, 1].
        reference: ``(B, C, H, W)`` in [0, 1], or the RGB picture whose luma ``image`` is.
        window_size: Side of the Gaussian window in pixels.
        sigma: Standard deviation of the window in pixels.
        padding: ``"valid"`` averages where the window fits (SGAFusion); ``"reflect"`` (SMFNet) and ``"zero"`` cover
            the whole picture.
        data_range: Difference between the largest and the smallest value that the constants of the measure are made
            for. The published evaluators that take 2 for gray levels 0..255 measure what ``2 / 255`` does here: flat
            regions then count as much as any other.

    Returns:
        A scalar, at least 0, below 2.

    Raises:
        TypeError: A picture is not a tensor, or not of a floating-point dtype.
        ValueError: The shapes do not fit, the pictures are smaller than the window, or an option is out of range.

    Reference:
        *SGAFusion* (2025), ``L_SSIM``; *SMFNet* (2025), its ``Loss_ssim``.

    Example:
        >>> import torch
        >>> from fusionblocks.losses import ssim_loss
        >>> picture = torch.rand(1, 3, 16, 16)
        >>> ssim_loss(picture, picture).abs() < 1e-6
        tensor(True)
    """
    image, reference = alike(image, reference)
    check_whole("window_size", window_size, 1)
    check_number("sigma", sigma, above=0)
    check_number("data_range", data_range, above=0)
    if window_size % 2 == 0:
        image, reference = image[..., 1:, 1:], reference[..., 1:, 1:]
        window_size -= 1
    if padding == "valid" and min(image.shape[-2:]) < window_size:
        size = f"{image.shape[-2]}x{image.shape[-1]} (height x width)"
        raise ValueError(f"image must be no smaller than the window of {window_size} pixels, got {size}")
    dtype = image.dtype
    if data_range < _FINE:
        image, reference = image.double(), reference.double()
    similarity = ssim(image, reference, data_range=data_range, window_size=window_size, sigma=sigma, padding=padding)
    return (1 - similarity.mean()).to(dtype)


@full_precision
def source_ssim_loss(
    fused: Tensor,
    infrared: Tensor,
    visible: Tensor,
    *,
    window_size: int = 11,
    sigma: float = 1.5,
    padding: Literal["valid", "reflect", "zero"] = "valid",
    data_range: float = 1.0,
) -> Tensor:
    r"""Return the structural dissimilarity of the fused picture to both sources, summed.

    .. math:: \bigl[1 - \mathrm{SSIM}(F, V)\bigr] + \bigl[1 - \mathrm{SSIM}(F_Y, I)\bigr]

    A fused RGB picture is compared with the visible one channel by channel, with the infrared one by its luma.

    Args:
        fused: ``(B, 1, H, W)`` luma or ``(B, 3, H, W)`` RGB, about [0, 1].
        infrared: ``(B, 1, H, W)`` in [0, 1].
        visible: ``(B, 3, H, W)`` RGB or, for a fused luma, ``(B, 1, H, W)`` luma, in [0, 1].
        window_size: Side of the Gaussian window in pixels, see :func:`ssim_loss`.
        sigma: Standard deviation of the window in pixels.
        padding: ``"valid"``, ``"reflect"`` or ``"zero"``, see :func:`ssim_loss`.
        data_range: What the constants of the measure are made for, see :func:`ssim_loss`.

    Returns:
        A scalar, at least 0, below 4.

    Raises:
        TypeError: A picture is not a tensor, or not of a floating-point dtype.
        ValueError: Channels, batch sizes or sizes do not fit, the pictures are smaller than the window, or an option
            is out of range.

    Reference:
        *SGAFusion* (2025), ``loss_ssim`` of ``fusion_loss``, which it computes with a window of 48 and adds with
        weight 0.

    Example:
        >>> import torch
        >>> from fusionblocks.losses import source_ssim_loss
        >>> picture = torch.rand(1, 1, 16, 16)
        >>> source_ssim_loss(picture, picture, picture).abs() < 1e-6
        tensor(True)
    """
    check_pictures(fused=fused, infrared=infrared, visible=visible)
    check_picture("infrared", infrared, 1)
    pairs = ((fused, visible_like(fused, visible)), (gray(fused), infrared))
    to_visible, to_infrared = (
        ssim_loss(*pair, window_size=window_size, sigma=sigma, padding=padding, data_range=data_range) for pair in pairs
    )
    return to_visible + to_infrared


@full_precision
def scd_loss(fused: Tensor, infrared: Tensor, visible: Tensor, *, least: float = 2.0) -> Tensor:
    r"""Return how much the sum of the correlations of differences falls short of its best value, or of a bound.

    .. math:: \operatorname{mean}_b \max\bigl(0,\; m - r(I, F - V) - r(V, F - I)\bigr)

    The measure itself is that of :func:`fusionblocks.metrics.sum_of_correlations_of_differences`, computed in float64.
    The correlation with a constant picture or difference is 0 and has no gradient. Colour pictures are compared by
    luma.

    Args:
        fused: ``(B, 1, H, W)`` luma or ``(B, 3, H, W)`` RGB, about [0, 1].
        infrared: ``(B, 1, H, W)`` in [0, 1].
        visible: ``(B, 3, H, W)`` RGB or ``(B, 1, H, W)`` luma in [0, 1].
        least: The bound :math:`m`; a picture that reaches it costs nothing. 2 is the best value there is.

    Returns:
        A scalar from 0 to 4.

    Raises:
        TypeError: A picture is not a tensor, or not of a floating-point dtype.
        ValueError: Channels, batch sizes or sizes do not fit, or the bound is out of (-2, 2].

    Reference:
        *A new image quality metric for image fusion: the sum of the correlations of differences* (2015).

    Example:
        >>> import torch
        >>> from fusionblocks.losses import scd_loss
        >>> infrared, visible = torch.rand(2, 1, 1, 8, 8)
        >>> scd_loss(infrared + visible, infrared, visible).abs() < 1e-6
        tensor(True)
    """
    check_number("least", least, above=-2, most=2)
    f, a, b = _gray_levels(fused, infrared, visible)
    return (least - pearson(a, f - b) - pearson(b, f - a)).clamp_min(0).mean().to(fused.dtype)


@full_precision
def vif_loss(fused: Tensor, infrared: Tensor, visible: Tensor) -> Tensor:
    r"""Return how much the visual information fidelity falls short of that of a perfect copy of both sources.

    .. math:: 2 - \operatorname{mean}_b \bigl[\mathrm{VIF}(I, F) + \mathrm{VIF}(V, F)\bigr]

    The measure itself is that of :func:`fusionblocks.metrics.visual_information_fidelity`, computed in float64. It
    rewards contrast: a result of more contrast than its sources brings the loss below 0, so add a term that holds
    brightness. Windows without detail have no gradient.

    Args:
        fused: ``(B, 1, H, W)`` luma or ``(B, 3, H, W)`` RGB, about [0, 1], at least 41x41 pixels.
        infrared: ``(B, 1, H, W)`` in [0, 1].
        visible: ``(B, 3, H, W)`` RGB or ``(B, 1, H, W)`` luma in [0, 1].

    Returns:
        A scalar, at most 2.

    Raises:
        TypeError: A picture is not a tensor, or not of a floating-point dtype.
        ValueError: Channels, batch sizes or sizes do not fit, or the pictures are too small.

    Reference:
        *Image Information and Visual Quality* (2006).

    Example:
        >>> import torch
        >>> from fusionblocks.losses import vif_loss
        >>> picture = torch.rand(1, 1, 48, 48)
        >>> vif_loss(picture, picture, picture).abs() < 1e-6
        tensor(True)
    """
    pictures = _gray_levels(fused, infrared, visible)
    height, width = fused.shape[-2:]
    if min(height, width) < SMALLEST:
        size = f"{height}x{width} (height x width)"
        raise ValueError(f"fused must have at least {SMALLEST}x{SMALLEST} pixels for VIF, got {size}")
    return (2 - fidelities(torch.stack(pictures)).sum(0)).mean().to(fused.dtype)


SSIMLoss = as_module("SSIMLoss", ssim_loss)
SourceSSIMLoss = as_module("SourceSSIMLoss", source_ssim_loss)
SCDLoss = as_module("SCDLoss", scd_loss)
VIFLoss = as_module("VIFLoss", vif_loss)


def _gray_levels(fused: Tensor, infrared: Tensor, visible: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the pictures as float64 gray levels 0..255, in which the metrics' constants are stated.

    Unlike the metrics' it neither clamps nor rounds: a fused value beyond [0, 1] keeps its gradient.
    """
    check_pictures(fused=fused, infrared=infrared, visible=visible)
    check_picture("infrared", infrared, 1)
    f, a, b = (gray(picture).double() * 255 for picture in (fused, infrared, visible))
    return f, a, b
