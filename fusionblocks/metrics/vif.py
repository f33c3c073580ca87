"""Visual information fidelity: how much of what an eye could learn from the sources the fused picture still tells."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fusionblocks.image.fidelity import SMALLEST, fidelities
from fusionblocks.metrics._inputs import check_smallest, gray_levels
from fusionblocks.metrics._math import reduce_sources


def visual_information_fidelity(
    fused: Tensor,
    infrared: Tensor,
    visible: Tensor,
    *,
    reduction: Literal["sum", "mean"] = "sum",
    saturated: bool = False,
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
    VIFF of the literature is another measure. PSFusion's tables have higher values: their evaluator got 8-bit
    arrays, whose products stop at 255, so that at the first scale hardly a window has a variance (``saturated=True``).

    Args:
        fused: ``(B, 1, H, W)``, ``uint8`` gray levels or float in [0, 1], at least 41x41 pixels.
        infrared: As ``fused``.
        visible: As ``fused``.
        reduction: Over the two sources.
        saturated: Whether products of whole levels stop at 255 at the first scale.

    Returns:
        ``(B,)``, float64.

    Raises:
        TypeError: A picture is not a tensor or has another dtype.
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
    check_smallest("VIF", f, SMALLEST)
    return reduce_sources(fidelities(torch.stack((f, a, b)), saturated=saturated), reduction)
