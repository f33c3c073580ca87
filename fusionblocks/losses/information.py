"""Information: how much the fused picture holds, and how much of it comes from the sources."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fusionblocks._support.checks import check_number, check_whole
from fusionblocks.image.checks import check_picture
from fusionblocks.losses._inputs import check_pictures, full_precision, gray
from fusionblocks.losses._modules import as_module

_TINY = 1e-9


@full_precision
def entropy_loss(
    fused: Tensor, infrared: Tensor, visible: Tensor, *, gain: float = 0.0, bins: int = 48, stride: int = 1
) -> Tensor:
    r"""Return by how many bits the fused picture's entropy falls short of the brighter source's and a gain.

    .. math:: \operatorname{mean}_b \max\bigl(0,\; H(\max(I, V)) + g - H(F)\bigr)

    A histogram has no gradient. Here each pixel counts for the two nearest of a few bins, in proportion to its
    distance from both (a Parzen estimate with a triangular window); values beyond [0, 1] count for the last bin.

    Args:
        fused: ``(B, 1, H, W)`` luma or ``(B, 3, H, W)`` RGB, about [0, 1].
        infrared: ``(B, 1, H, W)`` in [0, 1].
        visible: ``(B, 3, H, W)`` RGB or ``(B, 1, H, W)`` luma in [0, 1].
        gain: Bits :math:`g` that the fused picture should have beyond the brighter source.
        bins: How many bins cover [0, 1].
        stride: Every how many rows and columns a pixel is counted; more is faster.

    Returns:
        A scalar in bits, at least 0.

    Raises:
        TypeError: A picture is not a tensor, or not of a floating-point dtype.
        ValueError: Channels, batch sizes or sizes do not fit, or an option is out of range.

    Reference:
        The window: *Alignment by Maximization of Mutual Information* (1997).

    Example:
        >>> import torch
        >>> from fusionblocks.losses import entropy_loss
        >>> infrared, visible = torch.rand(2, 1, 1, 32, 32)
        >>> entropy_loss(torch.maximum(infrared, visible), infrared, visible)
        tensor(0.)
    """
    check_number("gain", gain, least=0)
    f, a, b = _shares(fused, infrared, visible, bins, stride)
    brighter = _shares_of(_sampled(torch.maximum(infrared, gray(visible)), stride), bins)
    short = _entropy(brighter.mean(1)) - _entropy(f.mean(1))
    return (short / math.log(2) + gain).clamp_min(0).mean()


@full_precision
def mutual_information_loss(
    fused: Tensor, infrared: Tensor, visible: Tensor, *, least: float = 3.0, bins: int = 48, stride: int = 1
) -> Tensor:
    r"""Return by how many nats the fused picture's mutual information with both sources falls short of a bound.

    .. math:: \operatorname{mean}_b \max\bigl(0,\; m - \mathrm{MI}(F, I) - \mathrm{MI}(F, V)\bigr)

    estimated as in :func:`entropy_loss`, from joint histograms of ``bins`` by ``bins``. Fewer bins than the metric's
    256 tell less apart, so that the value is below that of :func:`fusionblocks.metrics.mutual_information`.

    Args:
        fused: ``(B, 1, H, W)`` luma or ``(B, 3, H, W)`` RGB, about [0, 1].
        infrared: ``(B, 1, H, W)`` in [0, 1].
        visible: ``(B, 3, H, W)`` RGB or ``(B, 1, H, W)`` luma in [0, 1].
        least: The bound :math:`m` in nats.
        bins: How many bins cover [0, 1].
        stride: Every how many rows and columns a pixel is counted; more is faster.

    Returns:
        A scalar in nats, from 0 to ``least``.

    Raises:
        TypeError: A picture is not a tensor, or not of a floating-point dtype.
        ValueError: Channels, batch sizes or sizes do not fit, or an option is out of range.

    Reference:
        *Alignment by Maximization of Mutual Information* (1997).

    Example:
        >>> import torch
        >>> from fusionblocks.losses import mutual_information_loss
        >>> infrared, visible = torch.rand(2, 1, 1, 64, 64)
        >>> own = mutual_information_loss(torch.maximum(infrared, visible), infrared, visible)
        >>> bool(own < mutual_information_loss(torch.rand(1, 1, 64, 64), infrared, visible))
        True
    """
    check_number("least", least, above=0)
    shares = _shares(fused, infrared, visible, bins, stride)
    own, *sources = (_entropy(share.mean(1)) for share in shares)
    total = own.new_zeros(())
    for share, source in zip(shares[1:], sources, strict=True):
        joint = shares[0].transpose(1, 2) @ share / share.shape[1]  # (B, bins, bins)
        total = total + own + source - _entropy(joint.flatten(1))
    return (least - total).clamp_min(0).mean()


EntropyLoss = as_module("EntropyLoss", entropy_loss)
MutualInformationLoss = as_module("MutualInformationLoss", mutual_information_loss)


def _shares(fused: Tensor, infrared: Tensor, visible: Tensor, bins: int, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the shares of the bins in every counted pixel of all three pictures, each ``(B, N, bins)``."""
    check_pictures(fused=fused, infrared=infrared, visible=visible)
    check_picture("infrared", infrared, 1)
    check_whole("bins", bins, 2)
    check_whole("stride", stride, 1)
    f, a, b = (_shares_of(_sampled(gray(picture), stride), bins) for picture in (fused, infrared, visible))
    return f, a, b


def _sampled(picture: Tensor, stride: int) -> Tensor:
    return picture[..., ::stride, ::stride].flatten(1)


def _shares_of(values: Tensor, bins: int) -> Tensor:
    centres = torch.arange(bins, dtype=values.dtype, device=values.device)
    return (1 - (values.clamp(0, 1)[..., None] * (bins - 1) - centres).abs()).clamp_min(0)


def _entropy(probabilities: Tensor) -> Tensor:
    """Return the entropy in nats of distributions along the last dimension."""
    return -(probabilities * (probabilities + _TINY).log()).sum(-1)
