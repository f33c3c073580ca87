"""Metrics of the fused picture alone: entropy, standard deviation, spatial frequency, average gradient."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from fusionblocks._support.checks import check_choice
from fusionblocks.image.filters import sobel
from fusionblocks.image.numerics import safe_sqrt
from fusionblocks.metrics._histogram import histogram, shannon
from fusionblocks.metrics._inputs import check_smallest, gray_levels
from fusionblocks.metrics._math import central_differences

DeviationVariant = Literal["standard", "psfusion"]
FrequencyVariant = Literal["cddfuse", "vifb", "psfusion"]
GradientVariant = Literal["cddfuse", "smfnet", "vifb"]


def entropy(fused: Tensor, infrared: Tensor | None = None, visible: Tensor | None = None) -> Tensor:
    r"""Return EN, the Shannon entropy of the gray levels in bits.

    :math:`-\sum_k p_k \log_2 p_k` over the 256 levels, float pictures being rounded to the nearest one. From 0 (a
    constant picture) to 8; higher is better. It has no gradient: a histogram is piecewise constant.

    All published evaluators agree on it.

    Args:
        fused: ``(B, 1, H, W)``, ``uint8`` gray levels or float in [0, 1].
        infrared: Unused, checked if given.
        visible: Unused, checked if given.

    Returns:
        ``(B,)``, float64.

    Raises:
        TypeError: A picture is not a tensor or has an unfit dtype.
        ValueError: A picture has an unfit shape or values outside [0, 1].

    Reference:
        Assessment of image fusion procedures using entropy, image quality, and multispectral classification, 2008.

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import entropy
        >>> entropy(torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]]))
        tensor([1.], dtype=torch.float64)
    """
    f, _, _ = gray_levels(fused, infrared, visible, optional=True)
    return shannon(histogram(f))


def standard_deviation(
    fused: Tensor,
    infrared: Tensor | None = None,
    visible: Tensor | None = None,
    *,
    variant: DeviationVariant = "standard",
) -> Tensor:
    r"""Return SD, the standard deviation of the gray levels.

    :math:`\sqrt{\operatorname{mean}\,(F - \bar F)^2}`, divided by the number of pixels. From 0 (a constant picture) to
    127.5; higher is better. Differentiable, with the derivative 0 at a constant picture.

    All published evaluators agree on it, but not all published tables: those that PSFusion's authors made, and many
    that were made with their evaluator, show 8 to 11 where contrast is 30 to 60. There 8-bit arrays were handed to it,
    whose arithmetic stops at 0 and 255: :math:`\sqrt{\operatorname{mean}\min(255, \max(0, F - \bar F)^2)}` of whole
    levels, which is ``variant="psfusion"``. It says little about contrast.

    Args:
        fused: ``(B, 1, H, W)``, ``uint8`` gray levels or float in [0, 1].
        infrared: Unused, checked if given.
        visible: Unused, checked if given.
        variant: ``"standard"``, or ``"psfusion"`` for the saturating one.

    Returns:
        ``(B,)``, float64.

    Raises:
        TypeError: A picture is not a tensor or has an unfit dtype.
        ValueError: A picture has an unfit shape or values outside [0, 1], or the variant is unknown.

    Reference:
        In-fibre Bragg grating sensors, 1997 (as the evaluators cite it).

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import standard_deviation
        >>> standard_deviation(torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]]))
        tensor([127.5000], dtype=torch.float64)
    """
    check_choice("variant", variant, get_args(DeviationVariant))
    f, _, _ = gray_levels(fused, infrared, visible, optional=True)
    f = f.flatten(1)
    if variant == "psfusion":
        f = f.round()
        above = (f - f.mean(1, keepdim=True) + 0.5).floor().clamp_min(0)
        return above.square().clamp_max(255).mean(1).sqrt()
    return safe_sqrt((f - f.mean(1, keepdim=True)).square().mean(1))


def spatial_frequency(
    fused: Tensor,
    infrared: Tensor | None = None,
    visible: Tensor | None = None,
    *,
    variant: FrequencyVariant = "cddfuse",
) -> Tensor:
    r"""Return SF, the root of the mean squared differences of neighbours along rows plus those along columns.

    :math:`\sqrt{\overline{(F_{i,j} - F_{i,j-1})^2} + \overline{(F_{i,j} - F_{i-1,j})^2}}`. From 0 (a constant picture)
    to :math:`255\sqrt2`; higher is better. Differentiable, with the derivative 0 at a constant picture.

    CDDFuse and SMFNet divide each sum by its number of differences, VIFB by the number of pixels, which yields a
    slightly smaller number. PSFusion's tables are of pictures in [0, 1], so that theirs is CDDFuse's by 255.

    Args:
        fused: ``(B, 1, H, W)``, ``uint8`` gray levels or float in [0, 1], at least 2x2 pixels.
        infrared: Unused, checked if given.
        visible: Unused, checked if given.
        variant: ``"cddfuse"``, ``"vifb"`` or ``"psfusion"``, as above.

    Returns:
        ``(B,)``, float64.

    Raises:
        TypeError: A picture is not a tensor or has an unfit dtype.
        ValueError: A picture has an unfit shape or values outside [0, 1], or the variant is unknown.

    Reference:
        Image quality measures and their performance, 1995.

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import spatial_frequency
        >>> spatial_frequency(torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]]))
        tensor([255.], dtype=torch.float64)
    """
    check_choice("variant", variant, get_args(FrequencyVariant))
    f, _, _ = gray_levels(fused, infrared, visible, optional=True)
    check_smallest("SF", f, side=2)
    rows = f.diff(dim=-1).square().flatten(1)
    columns = f.diff(dim=-2).square().flatten(1)
    if variant == "vifb":
        return safe_sqrt((rows.sum(1) + columns.sum(1)) / f[0].numel())
    return safe_sqrt(rows.mean(1) + columns.mean(1)) / (255 if variant == "psfusion" else 1)


def average_gradient(
    fused: Tensor,
    infrared: Tensor | None = None,
    visible: Tensor | None = None,
    *,
    variant: GradientVariant = "cddfuse",
) -> Tensor:
    r"""Return AG, the mean magnitude of the gradient, taken by central differences (one-sided at the borders).

    :math:`\overline{\sqrt{(F_x^2 + F_y^2) / 2}}`. From 0 (a constant picture) to 255; higher is better. Differentiable,
    with the derivative 0 where the picture is flat.

    Three numbers carry this name: CDDFuse halves the squared magnitude as above; SMFNet (there ``AG1``) does not, which
    yields :math:`\sqrt2` times as much; VIFB halves it and divides the sum by :math:`(H-1)(W-1)`, not by the number of
    pixels.

    Args:
        fused: ``(B, 1, H, W)``, ``uint8`` gray levels or float in [0, 1], at least 2x2 pixels.
        infrared: Unused, checked if given.
        visible: Unused, checked if given.
        variant: ``"cddfuse"``, ``"smfnet"`` or ``"vifb"``, as above.

    Returns:
        ``(B,)``, float64.

    Raises:
        TypeError: A picture is not a tensor or has an unfit dtype.
        ValueError: A picture has an unfit shape or values outside [0, 1], or the variant is unknown.

    Reference:
        Detail preserved fusion of visible and infrared images using regional saliency extraction and multi-scale image
        decomposition, 2015.

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import average_gradient
        >>> ramp = torch.arange(0, 16, dtype=torch.uint8).repeat(1, 1, 16, 1)
        >>> average_gradient(ramp), average_gradient(ramp, variant="smfnet")
        (tensor([0.7071], dtype=torch.float64), tensor([1.], dtype=torch.float64))
    """
    check_choice("variant", variant, get_args(GradientVariant))
    f, _, _ = gray_levels(fused, infrared, visible, optional=True)
    check_smallest("AG", f, side=2)
    energy = central_differences(f, -1).square() + central_differences(f, -2).square()
    magnitude = safe_sqrt(energy if variant == "smfnet" else energy / 2).flatten(1)
    if variant == "vifb":
        return magnitude.sum(1) / ((f.shape[-2] - 1) * (f.shape[-1] - 1))
    return magnitude.mean(1)


def edge_intensity(fused: Tensor, infrared: Tensor | None = None, visible: Tensor | None = None) -> Tensor:
    r"""Return EI, the mean magnitude of the Sobel gradient of the result.

    :math:`\overline{\sqrt{(S_x * F)^2 + (S_y * F)^2}}`, the border repeated. From 0 (a constant picture) to about 1442;
    higher is better, though noise raises it too. Differentiable.

    Args:
        fused: ``(B, 1, H, W)``, ``uint8`` gray levels or float in [0, 1].
        infrared: Unused, checked if given.
        visible: Unused, checked if given.

    Returns:
        ``(B,)``, float64.

    Raises:
        TypeError: A picture is not a tensor or has an unfit dtype.
        ValueError: A picture has an unfit shape or values outside [0, 1].

    Reference:
        VIFB: a visible and infrared image fusion benchmark, 2020.

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import edge_intensity
        >>> edge_intensity(torch.full((1, 1, 8, 8), 0.5))
        tensor([0.], dtype=torch.float64)
    """
    f, _, _ = gray_levels(fused, infrared, visible, optional=True)
    across, down = sobel(f, border="replicate")
    return safe_sqrt(across.square() + down.square()).mean((1, 2, 3))
