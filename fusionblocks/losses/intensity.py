"""Brightness: what the fused picture should keep of the sources' intensities."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fusionblocks._support.checks import check_choice, check_number, check_whole
from fusionblocks.image.checks import check_picture
from fusionblocks.image.filters import add_border, gaussian_kernel
from fusionblocks.image.windows import filter_valid
from fusionblocks.losses._inputs import check_mask, check_pictures, full_precision, gray, mean_difference, visible_like
from fusionblocks.losses._modules import as_module


@full_precision
def intensity_max_loss(fused: Tensor, infrared: Tensor, visible: Tensor) -> Tensor:
    r"""Return how far the fused picture is from the brighter source at each pixel.

    .. math:: \operatorname{mean}\,\bigl|F - \max(I, V)\bigr|

    A fused luma is compared with the maximum of the infrared picture and the visible luma (SMFNet). A fused RGB picture
    takes, where the infrared picture is brighter than the *mean* of the visible channels, the infrared value in all
    three channels, elsewhere the visible colour (SGAFusion). The second derivative is 0.

    Args:
        fused: ``(B, 1, H, W)`` luma or ``(B, 3, H, W)`` RGB, about [0, 1].
        infrared: ``(B, 1, H, W)`` in [0, 1].
        visible: ``(B, 3, H, W)`` RGB or, for a fused luma, ``(B, 1, H, W)`` luma, in [0, 1].

    Returns:
        A scalar, at least 0.

    Raises:
        TypeError: A picture is not a tensor, or not of a floating-point dtype.
        ValueError: Channels, batch sizes or sizes do not fit.

    Reference:
        *SMFNet* (2025), ``Fusionloss``; *SGAFusion* (2025), ``L_Intensity_Max_RGB``.

    Example:
        >>> import torch
        >>> from fusionblocks.losses import intensity_max_loss
        >>> infrared, visible = torch.full((1, 1, 4, 4), 0.75), torch.full((1, 3, 4, 4), 0.5)
        >>> intensity_max_loss(torch.full((1, 1, 4, 4), 0.5), infrared, visible)
        tensor(0.2500)
    """
    check_pictures(fused=fused, infrared=infrared, visible=visible)
    check_picture("infrared", infrared, 1)
    return mean_difference(fused, _brighter(infrared, visible_like(fused, visible)))


@full_precision
def masked_intensity_loss(fused: Tensor, infrared: Tensor, visible: Tensor, mask: Tensor) -> Tensor:
    r"""Return how far the fused picture is from the infrared one on targets, and from the brighter source elsewhere.

    .. math::
        \operatorname{mean}\,\bigl|(1 - M)\,(F - \max(I, V))\bigr| + \operatorname{mean}\,\bigl|M\,(F - I)\bigr|

    Args:
        fused: ``(B, 1, H, W)`` luma or ``(B, 3, H, W)`` RGB, about [0, 1].
        infrared: ``(B, 1, H, W)`` in [0, 1].
        visible: ``(B, 3, H, W)`` RGB or, for a fused luma, ``(B, 1, H, W)`` luma, in [0, 1].
        mask: ``(B, 1, H, W)``, bool or float in [0, 1]: the salient targets.

    Returns:
        A scalar, at least 0.

    Raises:
        TypeError: An argument is not a tensor or has an unfit dtype.
        ValueError: Channels, batch sizes or sizes do not fit.

    Reference:
        *PSFusion* (2023), ``Fusionloss``, which its training script leaves aside for the patches of
        :func:`masked_patch_mse_loss`.

    Example:
        >>> import torch
        >>> from fusionblocks.losses import masked_intensity_loss
        >>> infrared, visible = torch.full((1, 1, 4, 4), 0.25), torch.full((1, 1, 4, 4), 0.5)
        >>> masked_intensity_loss(infrared, infrared, visible, torch.ones(1, 1, 4, 4))
        tensor(0.)
    """
    check_pictures(fused=fused, infrared=infrared, visible=visible)
    check_picture("infrared", infrared, 1)
    check_mask(mask, fused)
    mask = mask.to(fused.dtype)
    brighter = _brighter(infrared, visible_like(fused, visible))
    return mean_difference((1 - mask) * fused, (1 - mask) * brighter) + mean_difference(mask * fused, mask * infrared)


@full_precision
def masked_patch_mse_loss(
    fused: Tensor,
    infrared: Tensor,
    visible: Tensor,
    mask: Tensor,
    *,
    window_size: int = 9,
    sigma: float = 1.5,
    salient: Literal["infrared", "visible"] = "infrared",
) -> Tensor:
    r"""Return the squared error of each patch to one source: the salient one on targets, the livelier one elsewhere.

    .. math::
        \operatorname{mean}_p \frac{1}{w^2} \sum_{q \in N(p)} (F_q - S^{(p)}_q)^2, \qquad
        S^{(p)} = I \text{ where } M_p > 0 \text{ or } \sigma^2_p(I) > \sigma^2_p(V), \text{ else } V

    with patches :math:`N(p)` of :math:`w \times w` pixels and variances under a Gaussian window; beyond the edge, error
    and pictures are 0. Any positive value of the mask counts, as published. Colour pictures are compared by luma.

    The published training script passes the two sources in exchanged order, so that its mask selects the *visible*
    picture: that is ``salient="visible"``, and what :meth:`FusionLoss.preset` takes for ``"psfusion"``.

    Args:
        fused: ``(B, 1, H, W)`` luma or ``(B, 3, H, W)`` RGB, about [0, 1].
        infrared: ``(B, 1, H, W)`` in [0, 1].
        visible: ``(B, 3, H, W)`` RGB or ``(B, 1, H, W)`` luma in [0, 1].
        mask: ``(B, 1, H, W)``, bool or float in [0, 1]: the salient targets.
        window_size: Side of a patch and of the variance's window in pixels, odd.
        sigma: Standard deviation of the variance's window in pixels.
        salient: The source that targets are taken from.

    Returns:
        A scalar, at least 0.

    Raises:
        TypeError: An argument is not a tensor or has an unfit dtype.
        ValueError: Channels, batch sizes or sizes do not fit, or an option is out of range.

    Reference:
        *PSFusion* (2023), ``final_mse1``.

    Example:
        >>> import torch
        >>> from fusionblocks.losses import masked_patch_mse_loss
        >>> infrared, visible = torch.rand(2, 1, 1, 16, 16)
        >>> masked_patch_mse_loss(infrared, infrared, visible, torch.ones(1, 1, 16, 16))
        tensor(0.)
    """
    check_pictures(fused=fused, infrared=infrared, visible=visible)
    check_picture("infrared", infrared, 1)
    check_mask(mask, fused)
    check_whole("window_size", window_size, 1, odd=True)
    check_number("sigma", sigma, above=0)
    check_choice("salient", salient, ("infrared", "visible"))
    fused, visible = gray(fused), gray(visible)
    target, other = (infrared, visible) if salient == "infrared" else (visible, infrared)
    with torch.no_grad():  # a choice has no derivative
        livelier = _variance(target, window_size, sigma) > _variance(other, window_size, sigma)
        from_target = livelier | (mask > 0)
    to_target, to_other = (_patch_mean((fused - source).square(), window_size) for source in (target, other))
    return torch.where(from_target, to_target, to_other).mean()


IntensityMaxLoss = as_module("IntensityMaxLoss", intensity_max_loss)
MaskedIntensityLoss = as_module("MaskedIntensityLoss", masked_intensity_loss)
MaskedPatchMSELoss = as_module("MaskedPatchMSELoss", masked_patch_mse_loss)


def _brighter(infrared: Tensor, visible: Tensor) -> Tensor:
    return torch.where(infrared > visible.mean(dim=1, keepdim=True), infrared, visible)


def _variance(picture: Tensor, size: int, sigma: float) -> Tensor:
    kernel = gaussian_kernel(sigma, size, dtype=picture.dtype, device=picture.device)
    moments = torch.stack((picture, picture.square()))
    mean, square = filter_valid(add_border(moments, size // 2, "zero"), kernel)
    return square - mean.square()


def _patch_mean(x: Tensor, size: int) -> Tensor:
    return filter_valid(add_border(x, size // 2, "zero"), x.new_full((size,), 1 / size))
