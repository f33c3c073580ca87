"""Correlations: base features of both modalities agree and details differ; the result goes with both sources."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fusionblocks._support.checks import check_choice
from fusionblocks.image.checks import check_picture
from fusionblocks.image.numerics import pearson, safe_sqrt
from fusionblocks.losses._inputs import check_maps, check_pictures, full_precision, gray
from fusionblocks.losses._modules import as_module

#: Keeps the correlation of constant features finite, and the ratio of the decomposition positive.
_TINY, _OFFSET = torch.finfo(torch.float32).eps, 1.01


@full_precision
def feature_correlation(x: Tensor, y: Tensor, *, per_picture: bool = False) -> Tensor:
    r"""Return the correlation of two feature maps over all their values.

    .. math::
        r(X, Y) = \frac{\sum (X - \bar X)(Y - \bar Y)}{\epsilon + \lVert X - \bar X\rVert\,\lVert Y - \bar Y\rVert}

    The papers take the whole batch for one vector, so that the value depends on which pictures share a batch.

    Args:
        x: ``(B, C, H, W)``.
        y: ``(B, C, H, W)``.
        per_picture: Whether each picture has its own correlation, of which the mean is taken.

    Returns:
        A scalar from -1 to 1; 0 for constant features.

    Raises:
        TypeError: An argument is not a tensor, or not of a floating-point dtype.
        ValueError: The shapes differ.

    Reference:
        *SMFNet* (2025), ``cc``.

    Example:
        >>> import torch
        >>> from fusionblocks.losses import feature_correlation
        >>> x = torch.rand(2, 4, 8, 8)
        >>> feature_correlation(x, 1 - x).round(decimals=3)
        tensor(-1.)
    """
    check_maps(x=x, y=y)
    return _correlation(x, y, per_picture).mean()


@full_precision
def decomposition_loss(
    base_infrared: Tensor,
    base_visible: Tensor,
    detail_infrared: Tensor,
    detail_visible: Tensor,
    *,
    per_picture: bool = False,
    detach: bool = False,
) -> Tensor:
    r"""Return how far base features are from agreeing and details from being unrelated.

    .. math:: \frac{r(D_I, D_V)^2}{1.01 + r(B_I, B_V)}

    In the published script the correlations are numbers without a gradient, so that the term is reported and teaches
    nothing: that is ``detach=True``, and what :meth:`FusionLoss.preset` takes for SMFNet. Without it the term does what
    the paper says.

    Args:
        base_infrared: Base features ``(B, C, H, W)``.
        base_visible: As ``base_infrared``.
        detail_infrared: Detail features ``(B, C, H, W)``.
        detail_visible: As ``detail_infrared``.
        per_picture: Whether each picture has its own value, of which the mean is taken; the paper takes the batch for
            one vector.
        detach: Whether the term has no gradient, as published.

    Returns:
        A scalar, at least 0.

    Raises:
        TypeError: An argument is not a tensor, or not of a floating-point dtype.
        ValueError: The shapes of two modalities differ.

    Reference:
        *SMFNet* (2025), ``loss_decomp`` of its training script.

    Example:
        >>> import torch
        >>> from fusionblocks.losses import decomposition_loss
        >>> base, detail = torch.rand(2, 1, 4, 8, 8)
        >>> decomposition_loss(base, base, detail, detail).round(decimals=4)  # 1 / 2.01
        tensor(0.4975)
    """
    base, detail = _agreements(base_infrared, base_visible, detail_infrared, detail_visible, per_picture)
    loss = (detail.square() / (_OFFSET + base)).mean()
    return loss.detach() if detach else loss


@full_precision
def graph_decomposition_loss(
    base_infrared: Tensor,
    base_visible: Tensor,
    detail_infrared: Tensor,
    detail_visible: Tensor,
    graph_infrared: Tensor,
    graph_visible: Tensor,
    *,
    per_picture: bool = False,
) -> Tensor:
    r"""Return how far base features are from agreeing, details and graph features from being unrelated.

    .. math:: \frac{r(D_I, D_V)^2 + r(G_I, G_V)^2}{1.01 + r(B_I, B_V)}

    In the published script's second phase the correlation of the graph features is computed and the one of the details
    stands in its place, which is twice :func:`decomposition_loss`; this is the alternative that uses it.

    Args:
        base_infrared: Base features ``(B, C, H, W)``.
        base_visible: As ``base_infrared``.
        detail_infrared: Detail features ``(B, C, H, W)``.
        detail_visible: As ``detail_infrared``.
        graph_infrared: Graph features ``(B, C, H, W)``.
        graph_visible: As ``graph_infrared``.
        per_picture: Whether each picture has its own value, of which the mean is taken.

    Returns:
        A scalar, at least 0.

    Raises:
        TypeError: An argument is not a tensor, or not of a floating-point dtype.
        ValueError: The shapes of two modalities differ.

    Reference:
        *SMFNet* (2025), ``loss_decomp`` of its training script.

    Example:
        >>> import torch
        >>> from fusionblocks.losses import graph_decomposition_loss
        >>> base, detail = torch.rand(2, 1, 4, 8, 8)
        >>> graph_decomposition_loss(base, base, detail, detail, detail, detail).round(decimals=4)  # 2 / 2.01
        tensor(0.9950)
    """
    base, detail = _agreements(base_infrared, base_visible, detail_infrared, detail_visible, per_picture)
    check_maps(graph_infrared=graph_infrared, graph_visible=graph_visible)
    graph = _correlation(graph_infrared, graph_visible, per_picture)
    return ((detail.square() + graph.square()) / (_OFFSET + base)).mean()


@full_precision
def correlation_ratio_loss(
    fused: Tensor,
    infrared: Tensor,
    visible: Tensor,
    *,
    form: Literal["ratio", "difference"] = "ratio",
    per_picture: bool = False,
) -> Tensor:
    r"""Return how far the fused picture is from going with both sources.

    .. math:: \frac{1}{r(I, F) + r(V, F) + 10^{-6}}

    with Pearson's correlation over the whole batch. As published the ratio has a pole: beside it the loss and its
    gradient are huge, and beyond it, where the correlations are negative, the loss is negative. ``form="difference"``
    is the bounded alternative :math:`2 - r(I, F) - r(V, F)`. The correlation with a constant picture is 0 and has no
    gradient. It is computed in float64. Colour pictures are compared by luma.

    Args:
        fused: ``(B, 1, H, W)`` luma or ``(B, 3, H, W)`` RGB, about [0, 1].
        infrared: ``(B, 1, H, W)`` in [0, 1].
        visible: ``(B, 3, H, W)`` RGB or ``(B, 1, H, W)`` luma in [0, 1].
        form: ``"ratio"`` as published, or ``"difference"``.
        per_picture: Whether each picture has its own value, of which the mean is taken; the paper takes the batch for
            one vector.

    Returns:
        A scalar.

    Raises:
        TypeError: A picture is not a tensor, or not of a floating-point dtype.
        ValueError: Channels, batch sizes or sizes do not fit, or the form is unknown.

    Reference:
        *PSFusion* (2023), ``corr_loss``.

    Example:
        >>> import torch
        >>> from fusionblocks.losses import correlation_ratio_loss
        >>> picture = torch.rand(1, 1, 8, 8)
        >>> correlation_ratio_loss(picture, picture, picture).round(decimals=4)
        tensor(0.5000)
    """
    check_pictures(fused=fused, infrared=infrared, visible=visible)
    check_picture("infrared", infrared, 1)
    check_choice("form", form, ("ratio", "difference"))
    f, a, b = (gray(picture).double() for picture in (fused, infrared, visible))
    if not per_picture:
        f, a, b = (picture.unsqueeze(0) for picture in (f, a, b))
    agreement = pearson(a, f) + pearson(b, f)
    loss = 1 / (agreement + 1e-6) if form == "ratio" else 2 - agreement
    return loss.mean().to(fused.dtype)


DecompositionLoss = as_module("DecompositionLoss", decomposition_loss)
GraphDecompositionLoss = as_module("GraphDecompositionLoss", graph_decomposition_loss)
CorrelationRatioLoss = as_module("CorrelationRatioLoss", correlation_ratio_loss)


def _agreements(
    base_infrared: Tensor, base_visible: Tensor, detail_infrared: Tensor, detail_visible: Tensor, per_picture: bool
) -> tuple[Tensor, Tensor]:
    check_maps(base_infrared=base_infrared, base_visible=base_visible)
    check_maps(detail_infrared=detail_infrared, detail_visible=detail_visible)
    base = _correlation(base_infrared, base_visible, per_picture)
    return base, _correlation(detail_infrared, detail_visible, per_picture)


def _correlation(x: Tensor, y: Tensor, per_picture: bool) -> Tensor:
    """Return the correlation of the batch, ``(1,)``, or of each of its members, ``(B,)``."""
    x, y = (v.flatten(1) if per_picture else v.flatten().unsqueeze(0) for v in (x, y))
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    norm_x, norm_y = (safe_sqrt(v.square().sum(1)) for v in (x, y))
    return ((x * y).sum(1) / (_TINY + norm_x * norm_y)).clamp(-1, 1)
