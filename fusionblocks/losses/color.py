"""Colour: the fused picture keeps the visible one's."""

from __future__ import annotations

from torch import Tensor

from fusionblocks.image.checks import check_picture
from fusionblocks.image.color import rgb_to_ycbcr
from fusionblocks.losses._inputs import check_same_size, full_precision, mean_difference
from fusionblocks.losses._modules import as_module


@full_precision
def color_loss(fused: Tensor, visible: Tensor) -> Tensor:
    r"""Return how far the fused picture's chroma is from the visible one's.

    .. math:: \operatorname{mean}\,|Cb_F - Cb_V| + \operatorname{mean}\,|Cr_F - Cr_V|

    Args:
        fused: ``(B, 3, H, W)`` RGB, about [0, 1].
        visible: ``(B, 3, H, W)`` RGB in [0, 1].

    Returns:
        A scalar, at least 0.

    Raises:
        TypeError: A picture is not a tensor, or not of a floating-point dtype.
        ValueError: A picture has not three channels, or batch sizes or sizes differ.

    Reference:
        *SGAFusion* (2025), ``L_color``.

    Example:
        >>> import torch
        >>> from fusionblocks.losses import color_loss
        >>> visible = torch.rand(1, 3, 8, 8)
        >>> color_loss(visible / 2 + 0.25, visible) > 0
        tensor(True)
    """
    check_picture("fused", fused, 3)
    check_picture("visible", visible, 3)
    check_same_size("fused", fused, "visible", visible)
    fused_chroma, visible_chroma = (rgb_to_ycbcr(picture)[:, 1:] for picture in (fused, visible))
    return 2 * mean_difference(fused_chroma, visible_chroma)  # the mean over Cb and Cr is half their sum


ColorLoss = as_module("ColorLoss", color_loss)
