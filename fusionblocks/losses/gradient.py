"""Edges: what the fused picture should keep of the sources' gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from fusionblocks._support.checks import check_number
from fusionblocks.image.checks import check_picture
from fusionblocks.image.filters import Border, gradient_magnitude, sobel
from fusionblocks.losses._inputs import check_pictures, full_precision, gray, mean_difference
from fusionblocks.losses._modules import as_module


@full_precision
def joint_gradient_loss(fused: Tensor, infrared: Tensor, visible: Tensor, *, border: Border = "zero") -> Tensor:
    r"""Return how far the fused picture's edges are from the stronger source's, both directions summed.

    .. math::
        \operatorname{mean}\,\bigl|\,\nabla F - \max(\nabla I, \nabla V)\,\bigr|, \qquad
        \nabla X = |\partial_x X| + |\partial_y X|

    with Sobel's derivatives, not normalised. Colour pictures are compared by luma. Beyond the edge the papers take 0,
    so that a bright frame counts as an edge; ``border="replicate"`` has none there.

    Args:
        fused: ``(B, 1, H, W)`` luma or ``(B, 3, H, W)`` RGB, about [0, 1].
        infrared: ``(B, 1, H, W)`` in [0, 1].
        visible: ``(B, 3, H, W)`` RGB or ``(B, 1, H, W)`` luma in [0, 1].
        border: What lies beyond the edge: ``"zero"``, ``"replicate"`` or ``"reflect"``.

    Returns:
        A scalar, at least 0.

    Raises:
        TypeError: A picture is not a tensor, or not of a floating-point dtype.
        ValueError: Channels, batch sizes or sizes do not fit, or the border is unknown.

    Reference:
        *SMFNet* (2025), ``Fusionloss``.

    Example:
        >>> import torch
        >>> from fusionblocks.losses import joint_gradient_loss
        >>> flat, picture = torch.zeros(1, 1, 8, 8), torch.rand(1, 1, 8, 8)
        >>> joint_gradient_loss(picture, flat, picture)
        tensor(0.)
    """
    check_pictures(fused=fused, infrared=infrared, visible=visible)
    check_picture("infrared", infrared, 1)
    edges, *sources = (gradient_magnitude(gray(x), border=border) for x in (fused, infrared, visible))
    return mean_difference(edges, torch.maximum(*sources))


@full_precision
def axis_gradient_loss(
    fused: Tensor,
    infrared: Tensor,
    visible: Tensor,
    *,
    border: Border = "zero",
    gain: float = 1.0,
    signed: bool = False,
) -> Tensor:
    r"""Return how far the fused picture's edges are from the stronger source's, each direction by itself.

    .. math::
        \sum_{a \in \{x, y\}} \operatorname{mean}\,
        \Bigl|\,|\partial_a F| - g\,\max\bigl(|\partial_a I|, |\partial_a V|\bigr)\Bigr|

    with Sobel's derivatives, not normalised. Colour pictures are compared by luma. The papers compare magnitudes, so
    that an inverted edge costs nothing; ``signed`` compares the derivatives as they are.

    Args:
        fused: ``(B, 1, H, W)`` luma or ``(B, 3, H, W)`` RGB, about [0, 1].
        infrared: ``(B, 1, H, W)`` in [0, 1].
        visible: ``(B, 3, H, W)`` RGB or ``(B, 1, H, W)`` luma in [0, 1].
        border: What lies beyond the edge: ``"zero"`` (PSFusion), ``"replicate"`` (SGAFusion) or ``"reflect"``.
        gain: How many times stronger the fused edges should be, :math:`g`; 1 in the papers.
        signed: Whether the direction of an edge counts.

    Returns:
        A scalar, at least 0.

    Raises:
        TypeError: A picture is not a tensor, or not of a floating-point dtype.
        ValueError: Channels, batch sizes or sizes do not fit, the border is unknown, or the gain is not positive.

    Reference:
        *PSFusion* (2023), ``Fusion_loss``; *SGAFusion* (2025), ``GradientMaxLoss``.

    Example:
        >>> import torch
        >>> from fusionblocks.losses import axis_gradient_loss
        >>> flat, picture = torch.zeros(1, 1, 8, 8), torch.rand(1, 1, 8, 8)
        >>> axis_gradient_loss(picture, flat, picture, border="replicate")
        tensor(0.)
    """
    check_pictures(fused=fused, infrared=infrared, visible=visible)
    check_picture("infrared", infrared, 1)
    check_number("gain", gain, above=0)
    edges, first, second = (torch.stack(sobel(gray(x), border=border)) for x in (fused, infrared, visible))
    stronger = torch.where(first.abs() > second.abs(), first, second)
    if not signed:
        edges, stronger = edges.abs(), stronger.abs()
    return 2 * mean_difference(edges, gain * stronger)  # the mean over both directions is half their sum


JointGradientLoss = as_module("JointGradientLoss", joint_gradient_loss)
AxisGradientLoss = as_module("AxisGradientLoss", axis_gradient_loss)
