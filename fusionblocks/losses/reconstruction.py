"""A picture rebuilt from its features against the picture itself: values, gradients, channel products."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionblocks._support.checks import check_choice
from fusionblocks.image.filters import Border, add_border, gradient_magnitude
from fusionblocks.losses._inputs import alike, full_precision, mean_difference
from fusionblocks.losses._modules import as_module

# Sobel's derivatives are products of a smoothing and a differencing kernel
_SMOOTH_3, _DIFFERENCE_3 = (1.0, 2.0, 1.0), (-1.0, 0.0, 1.0)
_SMOOTH_5, _DIFFERENCE_5 = (1.0, 4.0, 6.0, 4.0, 1.0), (-1.0, -2.0, 0.0, 2.0, 1.0)
_SECOND_5 = (-1.0, 0.0, 2.0, 0.0, -1.0)
# what they answer to a slope, or a curvature, of one
_FIRST_UNIT, _SECOND_UNIT, _MIXED_SUM = 8.0, 64.0, 36.0


@full_precision
def l1_loss(image: Tensor, reference: Tensor) -> Tensor:
    r"""Return the mean absolute difference of two pictures.

    .. math:: \operatorname{mean}\,|X - Y|

    Args:
        image: ``(B, C, H, W)``, about [0, 1].
        reference: ``(B, C, H, W)`` in [0, 1], or the RGB picture whose luma ``image`` is.

    Returns:
        A scalar, at least 0.

    Raises:
        TypeError: A picture is not a tensor, or not of a floating-point dtype.
        ValueError: The shapes do not fit.

    Reference:
        *PSFusion* (2023), ``Re_loss``.

    Example:
        >>> import torch
        >>> from fusionblocks.losses import l1_loss
        >>> l1_loss(torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), 0.5))
        tensor(0.5000)
    """
    image, reference = alike(image, reference)
    return mean_difference(image, reference)


@full_precision
def gradient_loss(image: Tensor, reference: Tensor, *, border: Border = "zero") -> Tensor:
    r"""Return how far a picture's edges are from another's, both directions summed.

    .. math:: \operatorname{mean}\,|\nabla X - \nabla Y|, \qquad \nabla X = |\partial_x X| + |\partial_y X|

    with Sobel's derivatives, not normalised.

    Args:
        image: ``(B, C, H, W)``, about [0, 1].
        reference: ``(B, C, H, W)`` in [0, 1], or the RGB picture whose luma ``image`` is.
        border: What lies beyond the edge: ``"zero"``, ``"replicate"`` or ``"reflect"``.

    Returns:
        A scalar, at least 0.

    Raises:
        TypeError: A picture is not a tensor, or not of a floating-point dtype.
        ValueError: The shapes do not fit, or the border is unknown.

    Reference:
        *SMFNet* (2025), ``Fusion_loss_stage1``.

    Example:
        >>> import torch
        >>> from fusionblocks.losses import gradient_loss
        >>> picture = torch.rand(1, 1, 8, 8)
        >>> gradient_loss(picture, picture)
        tensor(0.)
    """
    image, reference = alike(image, reference)
    return mean_difference(*(gradient_magnitude(x, border=border) for x in (image, reference)))


@full_precision
def spatial_gradient_loss(image: Tensor, reference: Tensor) -> Tensor:
    r"""Return how far a picture's derivatives, with their signs, are from another's.

    .. math::
        \tfrac12 \sum_{a \in \{x, y\}} \operatorname{mean}\,|\partial_a X - \partial_a Y|

    with Sobel's derivatives divided by 8, the edge's pixels repeated beyond it.

    Args:
        image: ``(B, C, H, W)``, about [0, 1].
        reference: ``(B, C, H, W)`` in [0, 1], or the RGB picture whose luma ``image`` is.

    Returns:
        A scalar, at least 0.

    Raises:
        TypeError: A picture is not a tensor, or not of a floating-point dtype.
        ValueError: The shapes do not fit.

    Reference:
        *SMFNet* (2025), ``Gradient_loss`` of its first training phase.

    Example:
        >>> import torch
        >>> from fusionblocks.losses import spatial_gradient_loss
        >>> picture = torch.rand(1, 1, 8, 8)
        >>> spatial_gradient_loss(picture, picture + 0.5) < 1e-6
        tensor(True)
    """
    image, reference = alike(image, reference)
    kernels = _kernels(image, (_SMOOTH_3, _DIFFERENCE_3), (_DIFFERENCE_3, _SMOOTH_3)) / _FIRST_UNIT
    return _filtered(image - reference, kernels).abs().mean()


@full_precision
def second_gradient_loss(
    image: Tensor, reference: Tensor, *, normalization: Literal["unit", "absolute"] = "unit"
) -> Tensor:
    r"""Return how far the strength of a picture's second derivatives is from another's.

    .. math::
        \operatorname{mean}\,\bigl|D X - D Y\bigr|, \qquad
        D X = \sum_{\text{channels}} |\partial_{xx} X| + |\partial_{xy} X| + |\partial_{yy} X|

    with Sobel's kernels of 5x5 pixels divided by 64, which answer one to a curvature of one, the edge's pixels repeated
    beyond it. The library that the published code calls divided each by the sum of its absolute values when the paper
    appeared, the mixed one hence by 36: that is ``normalization="absolute"``.

    Args:
        image: ``(B, C, H, W)``, about [0, 1].
        reference: ``(B, C, H, W)`` in [0, 1], or the RGB picture whose luma ``image`` is.
        normalization: ``"unit"``, or ``"absolute"`` as above.

    Returns:
        A scalar, at least 0.

    Raises:
        TypeError: A picture is not a tensor, or not of a floating-point dtype.
        ValueError: The shapes do not fit, or the normalization is unknown.

    Reference:
        *PSFusion* (2023), ``Re_loss``.

    Example:
        >>> import torch
        >>> from fusionblocks.losses import second_gradient_loss
        >>> picture = torch.rand(1, 1, 8, 8)
        >>> second_gradient_loss(picture, picture)
        tensor(0.)
    """
    image, reference = alike(image, reference)
    check_choice("normalization", normalization, ("unit", "absolute"))
    kernels = _kernels(image, (_SMOOTH_5, _SECOND_5), (_DIFFERENCE_5, _DIFFERENCE_5), (_SECOND_5, _SMOOTH_5))
    mixed = _SECOND_UNIT if normalization == "unit" else _MIXED_SUM
    kernels = kernels / image.new_tensor((_SECOND_UNIT, mixed, _SECOND_UNIT)).view(3, 1, 1)
    return mean_difference(*(_filtered(x, kernels).abs().sum(dim=(1, 2)) for x in (image, reference)))


@full_precision
def gram_loss(image: Tensor, reference: Tensor) -> Tensor:
    r"""Return the squared difference of the channel products of two feature maps or pictures.

    .. math:: \operatorname{mean}\,(G_X - G_Y)^2, \qquad G_X = \frac{X X^\top}{C H W}

    with :math:`X` as :math:`C \times H W` matrix. Of one channel it compares the mean squared values.

    Args:
        image: ``(B, C, H, W)``.
        reference: ``(B, C, H, W)``, or the RGB picture whose luma ``image`` is.

    Returns:
        A scalar, at least 0.

    Raises:
        TypeError: An argument is not a tensor, or not of a floating-point dtype.
        ValueError: The shapes do not fit.

    Reference:
        *SMFNet* (2025), ``gram_matrix``.

    Example:
        >>> import torch
        >>> from fusionblocks.losses import gram_loss
        >>> gram_loss(torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4))
        tensor(1.)
    """
    image, reference = alike(image, reference)
    first, second = ((x @ x.mT) / x[0].numel() for x in (image.flatten(2), reference.flatten(2)))
    return (first - second).square().mean()


L1Loss = as_module("L1Loss", l1_loss)
GradientLoss = as_module("GradientLoss", gradient_loss)
SpatialGradientLoss = as_module("SpatialGradientLoss", spatial_gradient_loss)
SecondGradientLoss = as_module("SecondGradientLoss", second_gradient_loss)
GramLoss = as_module("GramLoss", gram_loss)


def _kernels(x: Tensor, *pairs: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
    """Return the products of a kernel down and one across, ``(kernels, size, size)``."""
    return torch.stack([torch.outer(x.new_tensor(down), x.new_tensor(across)) for down, across in pairs])


def _filtered(x: Tensor, kernels: Tensor) -> Tensor:
    """Filter each channel of ``(B, C, H, W)`` with each kernel: ``(B, C, kernels, H, W)``."""
    planes = add_border(x.flatten(0, 1).unsqueeze(1), kernels.shape[-1] // 2, "replicate")
    return F.conv2d(planes, kernels.unsqueeze(1)).unflatten(0, x.shape[:2])
