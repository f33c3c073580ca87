"""Edges: those of the sources that a fused picture loses, and those that it makes up."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fusionblocks.image.edges import artificial_edges, preserved_edges
from fusionblocks.image.filters import sobel
from fusionblocks.losses._inputs import check_pictures, full_precision, gray
from fusionblocks.losses._modules import as_module


@full_precision
def edge_preservation_loss(fused: Tensor, infrared: Tensor, visible: Tensor) -> Tensor:
    r"""Return the share of the sources' edges that the fused picture does not preserve.

    .. math:: 1 - Q^{ab/f}

    Args:
        fused: ``(B, 1, H, W)`` luma or ``(B, 3, H, W)`` RGB, about [0, 1], at least 3x3 pixels.
        infrared: ``(B, 1, H, W)`` in [0, 1].
        visible: ``(B, 3, H, W)`` RGB or ``(B, 1, H, W)`` luma in [0, 1].

    Returns:
        A scalar in [0, 1].

    Raises:
        TypeError: A picture is not a tensor, or not of a floating-point dtype.
        ValueError: Channels, batch sizes or sizes do not fit.

    Reference:
        The measure is :func:`fusionblocks.metrics.edge_preservation`, without the edges along the picture's sides.

    Example:
        >>> import torch
        >>> from fusionblocks.losses import edge_preservation_loss
        >>> picture = torch.rand(1, 1, 16, 16)
        >>> bool(edge_preservation_loss(picture, picture, picture) < 0.05)
        True
    """
    preserved, present = _edges(fused, infrared, visible, preserved_edges)
    return (1 - preserved / present.clamp_min(1e-6)).mean()


@full_precision
def artifact_loss(fused: Tensor, infrared: Tensor, visible: Tensor) -> Tensor:
    r"""Return the share of edges that are the fused picture's own: :math:`N^{ab/f}`.

    Args:
        fused: ``(B, 1, H, W)`` luma or ``(B, 3, H, W)`` RGB, about [0, 1], at least 3x3 pixels.
        infrared: ``(B, 1, H, W)`` in [0, 1].
        visible: ``(B, 3, H, W)`` RGB or ``(B, 1, H, W)`` luma in [0, 1].

    Returns:
        A scalar in [0, 1].

    Raises:
        TypeError: A picture is not a tensor, or not of a floating-point dtype.
        ValueError: Channels, batch sizes or sizes do not fit.

    Reference:
        The measure is :func:`fusionblocks.metrics.fusion_artifacts`, without the edges along the picture's sides.

    Example:
        >>> import torch
        >>> from fusionblocks.losses import artifact_loss
        >>> picture = torch.rand(1, 1, 16, 16)
        >>> artifact_loss(picture, picture, picture)
        tensor(0.)
    """
    artificial, total = _edges(fused, infrared, visible, artificial_edges)
    return (artificial / total).mean()


def _edges(fused: Tensor, infrared: Tensor, visible: Tensor, score: Callable[..., Tensor]) -> Tensor:
    """Return two sums over each picture of a score of edges, ``(2, B)``."""
    check_pictures(fused=fused, infrared=infrared, visible=visible)
    pictures = 255 * torch.stack([gray(fused), gray(infrared), gray(visible)])
    across, down = (response[..., 1:-1, 1:-1] for response in sobel(pictures.flatten(0, 1), border="replicate"))
    sums = score(*(response.unflatten(0, pictures.shape[:2]) for response in (across, down)))
    return sums.sum(dim=(-3, -2, -1))


EdgePreservationLoss = as_module("EdgePreservationLoss", edge_preservation_loss)
ArtifactLoss = as_module("ArtifactLoss", artifact_loss)
