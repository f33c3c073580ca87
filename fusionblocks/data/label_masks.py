"""Masks that a picture's class labels already hold: foreground, borders, chosen classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionblocks._support.checks import check_whole
from fusionblocks.image.labels import VOID

#: The masks that a segmentation network with more heads than one learns from.
MASKS = ("binary", "boundary", "salient")


def boundary_mask(labels: Tensor, *, width: int = 1) -> Tensor:
    """Mark the pixels that lie at a border between two classes.

    Pixels of no class, labelled 255, have no borders: neither they nor what touches them alone is marked.

    Args:
        labels: Classes ``(..., H, W)``, integers.
        width: How many pixels on each side of a border are marked.

    Returns:
        ``(..., H, W)`` of booleans: whether a pixel of another class is a neighbour, above, below, left or right; for a
        greater ``width``, whether such a pixel is less than ``width`` rows and columns away.

    Raises:
        TypeError: If the labels are not a tensor of integers, or ``width`` is not an integer.
        ValueError: If the labels have no rows and columns, or ``width`` is below 1.

    Example:
        >>> import torch
        >>> from fusionblocks.data import boundary_mask
        >>> boundary_mask(torch.tensor([[0, 0, 2, 2, 2]])).int()
        tensor([[0, 1, 1, 0, 0]], dtype=torch.int32)
    """
    _check_labels(labels)
    width = check_whole("width", width, 1)
    marked = torch.zeros(labels.shape, dtype=torch.bool, device=labels.device)
    known = labels.long() != VOID  # eight bits with a sign cannot hold it
    rows = (labels[..., 1:, :] != labels[..., :-1, :]) & known[..., 1:, :] & known[..., :-1, :]
    columns = (labels[..., 1:] != labels[..., :-1]) & known[..., 1:] & known[..., :-1]
    marked[..., 1:, :] |= rows
    marked[..., :-1, :] |= rows
    marked[..., 1:] |= columns
    marked[..., :-1] |= columns
    if width > 1:
        maps = marked.reshape(-1, 1, *labels.shape[-2:]).float()
        grown = F.max_pool2d(maps, 2 * width - 1, stride=1, padding=width - 1)
        marked = grown.bool().view(labels.shape) & known
    return marked


def class_mask(labels: Tensor, classes: Sequence[int]) -> Tensor:
    """Mark the pixels of some classes.

    Args:
        labels: Classes ``(..., H, W)``, integers.
        classes: The classes to mark.

    Returns:
        ``(..., H, W)`` of booleans.

    Raises:
        TypeError: If the labels are not a tensor of integers.
        ValueError: If the labels have no rows and columns.

    Example:
        >>> import torch
        >>> from fusionblocks.data import class_mask
        >>> class_mask(torch.tensor([[0, 1, 2, 3]]), classes=(1, 3)).int()
        tensor([[0, 1, 0, 1]], dtype=torch.int32)
    """
    _check_labels(labels)
    return torch.isin(labels, torch.tensor(list(classes), dtype=labels.dtype, device=labels.device))


def _check_labels(labels: Tensor) -> None:
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels must be a tensor of integers (..., H, W), got {type(labels).__name__}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels must be integers, got {labels.dtype}")
    if labels.ndim < 2:
        raise ValueError(f"labels must have shape (..., H, W), got {tuple(labels.shape)}")
