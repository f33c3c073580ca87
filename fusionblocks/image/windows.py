"""Local moments of pictures: means, variances and covariances under a sliding window."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

#: Outputs of one product with a banded matrix. Larger tiles multiply more zeros, smaller ones are more in number.
_TILE = 48
#: Pixels that are worked on together on a CPU: their intermediates stay near the cache.
_STRIP = 1 << 15


def filter_valid(x: Tensor, kernel: Tensor, stride: int = 1) -> Tensor:
    """Filter the height and the width of ``(..., H, W)`` with a symmetric kernel, where it fits entirely.

    Equal to a convolution with each row and column of pixels; written as products with a banded matrix, which are
    many times faster than a convolution in float64.

    Example:
        >>> filter_valid(torch.arange(5.0).expand(3, 5), torch.tensor([0.25, 0.5, 0.25]))
        tensor([[1., 2., 3.]])
    """
    height, width = ((side - kernel.numel()) // stride + 1 for side in x.shape[-2:])
    x = _join([band @ x[..., part, :] for band, part in _tiles(kernel, stride, height)], dim=-2)
    return _join([x[..., part] @ band.T for band, part in _tiles(kernel, stride, width)], dim=-1)


def _tiles(kernel: Tensor, stride: int, outputs: int) -> list[tuple[Tensor, slice]]:
    """Return the matrices, row ``i`` of which holds the kernel from column ``i * stride`` on, and what they act on."""
    taps, tile = kernel.numel(), min(_TILE, outputs)
    row = torch.arange(tile, device=kernel.device).unsqueeze(1)
    band = kernel.new_zeros(tile, (tile - 1) * stride + taps)
    band[row, row * stride + torch.arange(taps, device=kernel.device)] = kernel
    tiles = []
    for first in range(0, outputs, tile):
        count = min(tile, outputs - first)
        span = (count - 1) * stride + taps
        tiles.append((band[:count, :span], slice(first * stride, first * stride + span)))
    return tiles


def _join(parts: list[Tensor], dim: int) -> Tensor:
    return torch.cat(parts, dim) if len(parts) > 1 else parts[0]


def moments(pictures: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the local means and variances of pictures and the covariance of the first with each of the others.

    Args:
        pictures: ``(P, B, 1, H, W)``.
        kernel: Symmetric window of sum one, ``(N,)``, for rows and columns.

    Returns:
        Means ``(P, B, 1, H', W')``, variances of the same shape (rounding may leave them below 0) and covariances
        ``(P - 1, B, 1, H', W')``, where the window fits entirely.
    """
    first, others = pictures[:1], pictures[1:]
    stacked = torch.cat((pictures, pictures * pictures, first * others))
    mean, square, product = filter_valid(stacked, kernel).tensor_split((len(first) + len(others), 2 * len(pictures)))
    return mean, square - mean * mean, product - mean[:1] * mean[1:]


def sum_windows(score: Callable[[Tensor], Tensor], pictures: Tensor, window: int) -> Tensor:
    """Return the sum of a score over all windows that fit into a stack of pictures.

    On a CPU the stack is worked through in strips of rows that stay in the cache, which is several times faster.

    Args:
        score: Sum over a strip, from ``(P, b, 1, h, W)`` to ``(..., b)``.
        pictures: ``(P, B, 1, H, W)``.
        window: Side of a window, by which less one the strips overlap.

    Returns:
        ``(..., B)``.
    """
    batch, windows = pictures.shape[1], pictures.shape[-2] - window + 1
    if pictures.device.type != "cpu" or pictures[0].numel() <= _STRIP:
        return score(pictures)
    rows = max(_TILE, _STRIP // pictures.shape[-1] // _TILE * _TILE)
    together = max(1, _STRIP // (rows * pictures.shape[-1]))
    scores = []
    for first in range(0, batch, together):
        part = pictures[:, first : first + together]
        strips = [part[..., top : top + rows + window - 1, :] for top in range(0, windows, rows)]
        scores.append(sum((score(strip) for strip in strips[1:]), start=score(strips[0])))
    return torch.cat(scores, dim=-1)
