"""Floors under what a fused picture should not lose: contrast, sharpness, brightness; and the range of its values."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionblocks._support.checks import check_number, check_whole
from fusionblocks.image.checks import check_picture
from fusionblocks.image.numerics import safe_sqrt
from fusionblocks.losses._inputs import check_pictures, full_precision, gray
from fusionblocks.losses._modules import as_module


@full_precision
def contrast_loss(fused: Tensor, infrared: Tensor, visible: Tensor, *, gain: float = 1.0) -> Tensor:
    r"""Return by how much the fused picture's standard deviation falls short of the brighter source's times a gain.

    .. math:: \operatorname{mean}_b \max\bigl(0,\; g\,\sigma(\max(I, V)) - \sigma(F)\bigr)

    Args:
        fused: ``(B, 1, H, W)`` luma or ``(B, 3, H, W)`` RGB, about [0, 1].
        infrared: ``(B, 1, H, W)`` in [0, 1].
        visible: ``(B, 3, H, W)`` RGB or ``(B, 1, H, W)`` luma in [0, 1].
        gain: The factor :math:`g`.

    Returns:
        A scalar, at least 0.

    Raises:
        TypeError: A picture is not a tensor, or not of a floating-point dtype.
        ValueError: Channels, batch sizes or sizes do not fit, or the gain is not positive.

    Reference:
        The measure is :func:`fusionblocks.metrics.standard_deviation`; as a floor, ours.

    Example:
        >>> import torch
        >>> from fusionblocks.losses import contrast_loss
        >>> infrared, visible = torch.rand(2, 1, 1, 8, 8)
        >>> contrast_loss(torch.maximum(infrared, visible), infrared, visible)
        tensor(0.)
    """
    f, a, b = _gray_pictures(fused, infrared, visible)
    check_number("gain", gain, above=0)
    return (gain * _deviation(torch.maximum(a, b)) - _deviation(f)).clamp_min(0).mean()


@full_precision
def spatial_frequency_loss(fused: Tensor, infrared: Tensor, visible: Tensor, *, gain: float = 1.0) -> Tensor:
    r"""Return by how much the fused picture's spatial frequency falls short of the brighter source's times a gain.

    .. math::
        \operatorname{mean}_b \max\bigl(0,\; g\,s(\max(I, V)) - s(F)\bigr), \qquad
        s(X) = \sqrt{\overline{(\Delta_x X)^2} + \overline{(\Delta_y X)^2}}

    Args:
        fused: ``(B, 1, H, W)`` luma or ``(B, 3, H, W)`` RGB, about [0, 1], at least 2x2 pixels.
        infrared: ``(B, 1, H, W)`` in [0, 1].
        visible: ``(B, 3, H, W)`` RGB or ``(B, 1, H, W)`` luma in [0, 1].
        gain: The factor :math:`g`.

    Returns:
        A scalar, at least 0.

    Raises:
        TypeError: A picture is not a tensor, or not of a floating-point dtype.
        ValueError: Channels, batch sizes or sizes do not fit, the pictures are too small, or the gain is not positive.

    Reference:
        The measure is :func:`fusionblocks.metrics.spatial_frequency`; as a floor, ours.

    Example:
        >>> import torch
        >>> from fusionblocks.losses import spatial_frequency_loss
        >>> infrared, visible = torch.rand(2, 1, 1, 8, 8)
        >>> spatial_frequency_loss(torch.maximum(infrared, visible), infrared, visible)
        tensor(0.)
    """
    f, a, b = _gray_pictures(fused, infrared, visible)
    check_number("gain", gain, above=0)
    if min(f.shape[-2:]) < 2:
        raise ValueError(f"fused must have at least 2x2 pixels, got {f.shape[-2]}x{f.shape[-1]} (height x width)")
    return (gain * _frequency(torch.maximum(a, b)) - _frequency(f)).clamp_min(0).mean()


@full_precision
def brightness_loss(fused: Tensor, infrared: Tensor, visible: Tensor, *, window_size: int = 16) -> Tensor:
    r"""Return how far the fused picture is, window by window, darker than the mean of its sources.

    .. math:: \operatorname{mean}_w \max\bigl(0,\; \tfrac12(\bar I_w + \bar V_w) - \bar F_w\bigr)

    over square windows that overlap by half, cut at the edge. It keeps a cold sky from turning black.

    Args:
        fused: ``(B, 1, H, W)`` luma or ``(B, 3, H, W)`` RGB, about [0, 1].
        infrared: ``(B, 1, H, W)`` in [0, 1].
        visible: ``(B, 3, H, W)`` RGB or ``(B, 1, H, W)`` luma in [0, 1].
        window_size: Side of a window in pixels; the whole picture where that is smaller.

    Returns:
        A scalar, at least 0.

    Raises:
        TypeError: A picture is not a tensor, or not of a floating-point dtype.
        ValueError: Channels, batch sizes or sizes do not fit, or the window is not a positive integer.

    Reference:
        Ours.

    Example:
        >>> import torch
        >>> from fusionblocks.losses import brightness_loss
        >>> infrared, visible = torch.full((1, 1, 32, 32), 0.25), torch.full((1, 1, 32, 32), 0.75)
        >>> brightness_loss(infrared, infrared, visible)
        tensor(0.2500)
    """
    f, a, b = _gray_pictures(fused, infrared, visible)
    check_whole("window_size", window_size, 1)
    window = [min(window_size, side) for side in f.shape[-2:]]
    stride = [max(1, side // 2) for side in window]
    return F.avg_pool2d((a + b) / 2 - f, window, stride).clamp_min(0).mean()


@full_precision
def range_loss(fused: Tensor) -> Tensor:
    r"""Return the mean square of what lies outside [0, 1], which a picture would clip.

    Args:
        fused: ``(B, 1, H, W)`` luma or ``(B, 3, H, W)`` RGB.

    Returns:
        A scalar, at least 0.

    Raises:
        TypeError: The picture is not a tensor, or not of a floating-point dtype.
        ValueError: It has an unfit shape.

    Reference:
        Ours.

    Example:
        >>> import torch
        >>> from fusionblocks.losses import range_loss
        >>> range_loss(torch.full((1, 1, 4, 4), 1.5))
        tensor(0.2500)
    """
    check_pictures(fused=fused)
    return (fused - fused.clamp(0, 1)).square().mean()


ContrastLoss = as_module("ContrastLoss", contrast_loss)
SpatialFrequencyLoss = as_module("SpatialFrequencyLoss", spatial_frequency_loss)
BrightnessLoss = as_module("BrightnessLoss", brightness_loss)
RangeLoss = as_module("RangeLoss", range_loss)


def _gray_pictures(fused: Tensor, infrared: Tensor, visible: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    check_pictures(fused=fused, infrared=infrared, visible=visible)
    check_picture("infrared", infrared, 1)
    return gray(fused), infrared, gray(visible)


def _deviation(picture: Tensor) -> Tensor:
    return safe_sqrt(picture.var(dim=(-3, -2, -1), correction=0))


def _frequency(picture: Tensor) -> Tensor:
    across, down = (picture.diff(dim=dim).square().mean(dim=(-3, -2, -1)) for dim in (-1, -2))
    return safe_sqrt(across + down)
