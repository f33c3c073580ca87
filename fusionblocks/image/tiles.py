"""Running a function over overlapping tiles of a picture and over slices of a batch, which bounds its memory.

Tiles blend: the result is the whole one only where the function sees less than a quarter of the overlap. What can be
had exactly goes by rows, see :mod:`fusionblocks.image.rows`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

# what runs in parts: tensors (b, c, h, w) in, tensors (b, d, h, w) out
Function = Callable[..., tuple[Tensor, ...]]


class Parts(NamedTuple):
    """How a batch of pictures is cut.

    Args:
        tile: Side of the square tiles in pixels; None leaves pictures whole.
        overlap: Pixels that neighbouring tiles share at least.
        pictures: Pictures that go together; None: all.
    """

    tile: int | None = None
    overlap: int = 0
    pictures: int | None = None


def check_parts(tile: int | None, overlap: int | None, multiple: int) -> tuple[int | None, int]:
    """Return the tile and the overlap, a quarter of the tile unless given; raise if they do not fit."""
    if tile is None:
        if overlap is not None:
            raise ValueError(f"overlap goes with tile, which is None; got overlap={overlap!r}")
        return None, 0
    if not isinstance(tile, int) or isinstance(tile, bool) or tile < 4 * multiple or tile % multiple:
        raise ValueError(f"tile must be a multiple of {multiple} pixels, at least {4 * multiple}, got {tile!r}")
    if overlap is None:
        return tile, tile // 4
    if not isinstance(overlap, int) or isinstance(overlap, bool) or not 0 <= overlap <= tile // 2:
        raise ValueError(f"overlap must be an integer from 0 to half the tile, {tile // 2}, got {overlap!r}")
    return tile, overlap


def in_parts(function: Function, tensors: tuple[Tensor, ...], parts: Parts, multiple: int = 1) -> tuple[Tensor, ...]:
    """Return ``function(*tensors)``, computed part by part.

    Args:
        function: Maps pictures to pictures of the same size and independently of the rest of the batch.
        tensors: Pictures ``(B, C, H, W)`` of one size.
        parts: How they are cut.
        multiple: What ``H`` and ``W`` are multiples of; every tile begins at such a multiple.
    """
    batch = tensors[0].shape[0]
    count = parts.pictures or batch
    slices = [tuple(tensor[i : i + count] for tensor in tensors) for i in range(0, batch, count)]
    results = [_in_tiles(function, part, parts, multiple) for part in slices]
    return results[0] if len(results) == 1 else tuple(torch.cat(pictures) for pictures in zip(*results, strict=True))


def spans(length: int, tile: int, overlap: int, multiple: int = 1) -> list[slice]:
    """Return spans of ``tile`` pixels that cover ``length`` and share at least ``overlap`` with their neighbours."""
    if length <= tile:
        return [slice(0, length)]
    stride = max((tile - overlap) // multiple, 1) * multiple
    starts = [*range(0, length - tile, stride), length - tile]
    return [slice(start, start + tile) for start in starts]


def window(span: slice, length: int, overlap: int) -> Tensor:
    """Return the weights along a tile.

    Where a neighbour is, the outer quarter of the overlap counts nothing: there the tile sees too little around.
    Over the next half the weight rises as a squared sine.
    """
    position = torch.arange(span.start, span.stop) + 0.5
    weight = torch.ones_like(position)
    for distance, has_neighbour in (
        (position - span.start, span.start > 0),
        (span.stop - position, span.stop < length),
    ):
        if has_neighbour and overlap:
            share = ((distance - overlap / 4) / (overlap / 2)).clamp(0, 1)
            weight = weight * (share * math.pi / 2).sin().square()
    return weight


def _in_tiles(function: Function, tensors: tuple[Tensor, ...], parts: Parts, multiple: int) -> tuple[Tensor, ...]:
    height, width = tensors[0].shape[-2:]
    if parts.tile is None or max(height, width) <= parts.tile:
        return function(*tensors)
    totals: list[Tensor] = []
    weights = tensors[0].new_zeros(height, width, dtype=torch.float32)
    dtypes: list[torch.dtype] = []
    for rows in spans(height, parts.tile, parts.overlap, multiple):
        for columns in spans(width, parts.tile, parts.overlap, multiple):
            results = function(*(tensor[..., rows, columns] for tensor in tensors))
            if not totals:
                dtypes = [result.dtype for result in results]
                totals = [weights.new_zeros(*result.shape[:2], height, width) for result in results]
            weight = torch.outer(window(rows, height, parts.overlap), window(columns, width, parts.overlap))
            weight = weight.to(weights)
            weights[rows, columns] += weight
            for total, result in zip(totals, results, strict=True):
                total[..., rows, columns] += result.float() * weight
    return tuple((total / weights).to(dtype) for total, dtype in zip(totals, dtypes, strict=True))
