"""Padding a picture to a multiple by reflection, and cropping it back exactly."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Padding(NamedTuple):
    """How many pixels were added on each side of a picture.

    Args:
        left: Columns before the first.
        right: Columns after the last.
        top: Rows above the first.
        bottom: Rows below the last.
    """

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
        ValueError: ``multiple`` is not a positive integer, or ``x`` has no pixels.

    Example:
        >>> import torch
        >>> from fusionblocks.image import crop, pad_to_multiple
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
    padding = Padding(*_halves(x.shape[-1], multiple), *_halves(x.shape[-2], multiple))
    return reflect_pad(x, padding), padding


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
        >>> import torch
        >>> from fusionblocks.image import Padding, crop
        >>> crop(torch.arange(5.0).expand(1, 1, 5, 5), Padding(left=1, right=2, top=0, bottom=4))
        tensor([[[[1., 2.]]]])
    """
    left, right, top, bottom = padding
    height, width = x.shape[-2:]
    if height <= top + bottom or width <= left + right:
        raise ValueError(f"x must be larger than its padding, got {height}x{width} (height x width) and {padding}")
    if torch.compiler.is_compiling():  # a view is contiguous or not by its size, which would bind an export
        x = x.index_select(-2, torch.arange(top, height - bottom, device=x.device))
        return x.index_select(-1, torch.arange(left, width - right, device=x.device))
    return x[..., top : height - bottom, left : width - right]


def reflect_pad(x: Tensor, padding: Padding) -> Tensor:
    """Reflect a picture on its four sides by any number of pixels, more than it has included.

    Args:
        x: ``(..., H, W)``, any dtype, ``H, W >= 1``.
        padding: Pixels to add on each side, none negative.

    Returns:
        ``(..., top + H + bottom, left + W + right)``.

    Example:
        >>> import torch
        >>> from fusionblocks.image import Padding, reflect_pad
        >>> reflect_pad(torch.tensor([[1, 2, 3]]), Padding(left=1, right=5, top=0, bottom=0))
        tensor([[2, 1, 2, 3, 2, 1, 2, 3, 2]])
    """
    left, right, top, bottom = padding
    if not torch.compiler.is_compiling():  # an export must not be bound to one side of these branches
        if not any(padding):
            return x
        height, width = x.shape[-2:]
        if x.is_floating_point() and x.numel() and max(top, bottom) < height and max(left, right) < width:
            # the fast way, which PyTorch has for three or four dimensions and padding smaller than the picture
            padded = F.pad(x.reshape(-1, height, width), tuple(padding), mode="reflect")
            return padded.view(*x.shape[:-2], *padded.shape[-2:])
    return _reflect(_reflect(x, -2, top, bottom), -1, left, right)


def _reflect(x: Tensor, dim: int, before: int, after: int) -> Tensor:
    # a reflected signal is periodic: 0 1 2 3 | 2 1 | 0 1 2 3 ... repeats after 2 (size - 1)
    size = x.shape[dim]
    # The last term, 1 for a single pixel and else 0, asks nothing of a size that an export leaves open. PyTorch 2.11
    # cannot compile sym_max of sizes that it knows.
    period = 2 * (size - 1) + 2 // (size + 1)
    index = torch.arange(-before, size + after, device=x.device)
    whole = torch.full_like(index[:1], period)  # as a tensor, since ONNX has no modulo by a size that is left open
    index = index.remainder(whole)
    return x.index_select(dim, torch.minimum(index, whole - index))


def missing(size: int, multiple: int) -> int:
    """Return how much a side lacks to the next multiple.

    Example:
        >>> missing(37, 32)
        27
    """
    return (multiple - size % multiple) % multiple  # not -size % multiple: compilers have no modulo of negative sizes


def _halves(size: int, multiple: int) -> tuple[int, int]:
    lacking = missing(size, multiple)
    return lacking // 2, lacking - lacking // 2
