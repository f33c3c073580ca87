"""Padding a picture to a multiple by reflection, and cropping it back exactly."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Padding(NamedTuple):
    """How many pixels were added on each side of a picture."""

    left: int
    right: int
    top: int
    bottom: int


def pad_to_multiple(x: Tensor, multiple: int) -> tuple[Tensor, Padding]:
    """Reflect a picture on all four sides, as evenly as possible, until its sides are multiples of ``multiple``.

    An odd pixel goes to the right or the bottom. The edge pixel itself is not repeated; where the padding is
    larger than the picture, the reflection is reflected again, so that every size works, one pixel included.

    Args:
        x: ``(..., H, W)``, any dtype, ``H, W >= 1``.
        multiple: What height and width must be divisible by, at least 1.

    Returns:
        The padded picture (``x`` itself where nothing is missing) and the :class:`Padding` that :func:`crop` takes off.

    Raises:
        ValueError: ``multiple`` is no positive integer, or ``x`` has no pixels.

    Example:
        >>> padded, padding = pad_to_multiple(torch.rand(1, 3, 37, 50), 32)
        >>> padded.shape, padding
        (torch.Size([1, 3, 64, 64]), Padding(left=7, right=7, top=13, bottom=14))
        >>> crop(padded, padding).shape
        torch.Size([1, 3, 37, 50])
    """
    if not isinstance(multiple, int) or isinstance(multiple, bool) or multiple < 1:
        raise ValueError(f"multiple must be a positive integer, got {multiple!r}")
    if x.ndim < 2 or x.shape[-2] < 1 or x.shape[-1] < 1:
        raise ValueError(f"x must have shape (..., H, W) with at least one pixel, got {tuple(x.shape)}")
    if multiple == 1:
        return x, Padding(0, 0, 0, 0)
    x, top, bottom = _reflect(x, -2, multiple)
    x, left, right = _reflect(x, -1, multiple)
    return x, Padding(left, right, top, bottom)


def crop(x: Tensor, padding: Padding) -> Tensor:
    """Take the padding off again.

    Args:
        x: ``(..., H, W)``, as large as the padded picture.
        padding: What :func:`pad_to_multiple` answered.

    Returns:
        A view of ``x`` without the padding.

    Raises:
        ValueError: ``x`` is not larger than its padding.

    Example:
        >>> crop(torch.arange(5.0).expand(1, 1, 5, 5), Padding(left=1, right=2, top=0, bottom=4))
        tensor([[[[1., 2.]]]])
    """
    left, right, top, bottom = padding
    height, width = x.shape[-2:]
    if height <= top + bottom or width <= left + right:
        raise ValueError(f"x must be larger than its padding, got {height}x{width} (height x width) and {padding}")
    return x[..., top : height - bottom, left : width - right]


def _reflect(x: Tensor, dim: int, multiple: int) -> tuple[Tensor, int, int]:
    """Reflect ``x`` along one dimension; returns it with the pixels added before and after."""
    size = x.shape[dim]
    missing = (size + multiple - 1) // multiple * multiple - size
    if not torch.compiler.is_compiling() and missing == 0:  # an export must not be bound to one side of a branch
        return x, 0, 0
    before = missing // 2
    # a reflected signal is periodic: 0 1 2 3 | 2 1 | 0 1 2 3 ... repeats after 2 (size - 1)
    index = torch.arange(-before, size + missing - before, device=x.device)
    period = torch.sym_max(2 * (size - 1), 1)
    index = index.remainder(period)
    index = torch.minimum(index, period - index) if size > 1 else torch.zeros_like(index)
    return x.index_select(dim, index), before, missing - before
