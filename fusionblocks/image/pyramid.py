"""Gaussian and Laplacian pyramids of any picture size, and the way back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fusionblocks.image.filters import add_border, check_plane, separable

# Burt & Adelson 1983: the generating kernel with a = 0.375
KERNEL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


def max_levels(height: int, width: int) -> int:
    """Return how many levels a pyramid of a picture may have, until its shorter side is one pixel.

    Args:
        height: Rows of the picture, at least 1.
        width: Columns of the picture, at least 1.

    Raises:
        ValueError: A side is smaller than 1.

    Example:
        >>> from fusionblocks.image import max_levels
        >>> max_levels(37, 50), max_levels(1, 50)
        (7, 1)
    """
    if height < 1 or width < 1:
        raise ValueError(f"height and width must be at least 1, got {height}x{width} (height x width)")
    side, levels = min(height, width), 1
    while side > 1:
        side, levels = (side + 1) // 2, levels + 1
    return levels


def gaussian_pyramid(x: Tensor, levels: int) -> list[Tensor]:
    """Return a picture and its ever smaller versions, each blurred and half as large (rounded up) as the one before.

    Args:
        x: ``(..., H, W)``, floating point.
        levels: How many pictures, ``x`` included, from 1 to :func:`max_levels`.

    Returns:
        ``levels`` tensors, the finest first.

    Raises:
        TypeError: ``x`` is not of a floating-point dtype.
        ValueError: ``x`` has no height and width, or is too small for ``levels``.

    Reference:
        The Laplacian Pyramid as a Compact Image Code (1983).

    Example:
        >>> import torch
        >>> from fusionblocks.image import gaussian_pyramid
        >>> [tuple(level.shape) for level in gaussian_pyramid(torch.rand(37, 50), 3)]
        [(37, 50), (19, 25), (10, 13)]
    """
    check_plane("x", x)
    # an export leaves the size open; from one pixel on, all further levels are alike
    most = levels if torch.compiler.is_exporting() else max_levels(x.shape[-2], x.shape[-1])
    if not isinstance(levels, int) or isinstance(levels, bool) or not 1 <= levels <= most:
        size = f"{x.shape[-2]}x{x.shape[-1]} (height x width)"
        raise ValueError(f"levels must be an integer from 1 to {most} for a picture of {size}, got {levels!r}")
    pyramid = [x]
    while len(pyramid) < levels:
        pyramid.append(_reduce(pyramid[-1]))
    return pyramid


def laplacian_pyramid(x: Tensor, levels: int) -> list[Tensor]:
    """Split a picture into bands of detail, and one small blurred picture that holds the rest.

    Args:
        x: ``(..., H, W)``, floating point.
        levels: How many tensors, the last one included, from 1 to :func:`max_levels`.

    Returns:
        ``levels`` tensors, the finest detail first; the last is the coarsest level of the Gaussian pyramid.

    Raises:
        TypeError: ``x`` is not of a floating-point dtype.
        ValueError: ``x`` has no height and width, or is too small for ``levels``.

    Reference:
        The Laplacian Pyramid as a Compact Image Code (1983).

    Example:
        >>> import torch
        >>> from fusionblocks.image import laplacian_pyramid, reconstruct
        >>> x = torch.rand(37, 50)
        >>> torch.allclose(reconstruct(laplacian_pyramid(x, 4)), x, atol=1e-6)
        True
    """
    blurred = gaussian_pyramid(x, levels)
    details = [fine - _expand(coarse, fine) for fine, coarse in zip(blurred, blurred[1:], strict=False)]
    return [*details, blurred[-1]]


def reconstruct(pyramid: Sequence[Tensor]) -> Tensor:
    """Put a Laplacian pyramid together again, the exact inverse of :func:`laplacian_pyramid` up to rounding.

    Args:
        pyramid: The levels, finest first; each half as large (rounded up) as the one before.

    Returns:
        ``(..., H, W)``, the size of the finest level.

    Raises:
        ValueError: The pyramid is empty, or a level's size does not follow from the one before.

    Reference:
        The Laplacian Pyramid as a Compact Image Code (1983).

    Example:
        >>> import torch
        >>> from fusionblocks.image import reconstruct
        >>> reconstruct([torch.zeros(3, 4), torch.ones(2, 2)])
        tensor([[1., 1., 1., 1.],
                [1., 1., 1., 1.],
                [1., 1., 1., 1.]])
    """
    if len(pyramid) == 0:
        raise ValueError("pyramid must have at least one level, got none")
    *details, x = pyramid
    check_plane("pyramid[-1]", x)
    for i in reversed(range(len(details))):
        check_plane(f"pyramid[{i}]", details[i])
        height, width = ((side + 1) // 2 for side in details[i].shape[-2:])
        if x.shape[-2] != height or x.shape[-1] != width:
            raise ValueError(
                f"pyramid[{i + 1}] must have size {height}x{width}, half of pyramid[{i}], "
                f"got {x.shape[-2]}x{x.shape[-1]} (height x width)"
            )
        x = details[i] + _expand(x, details[i])
    return x


def _reduce(x: Tensor) -> Tensor:
    return separable(add_border(x, 2, "reflect"), _kernel(x))[..., ::2, ::2]


def _expand(x: Tensor, like: Tensor) -> Tensor:
    """Double a picture to the size of ``like``: zeros between the pixels, then the kernel at twice its weight."""
    height, width = like.shape[-2:]
    x = torch.stack((x, torch.zeros_like(x)), dim=-1).flatten(-2)
    x = torch.stack((x, torch.zeros_like(x)), dim=-2).flatten(-3, -2)
    # mirrored at its edge pixels, the comb of pixels and zeros goes on beyond the edge in step, for even sizes and odd
    return separable(add_border(x[..., :height, :width], 2, "reflect"), 2 * _kernel(x))


def _kernel(x: Tensor) -> Tensor:
    return torch.stack([x.new_full((), tap) for tap in KERNEL])  # on the device, nothing is copied there
