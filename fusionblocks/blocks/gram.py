"""What channel attention gathers of a whole map, added up strip by strip."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch
from einops import einsum, rearrange
from torch import Tensor, nn

from fusionblocks.ops.channel_attention.reference import EPS

# Shapes: B batch, C channels, h W strip, heads x c = C


class Gram:
    """Products of queries and keys, and their squared norms, of the strips of a map together."""

    def __init__(self) -> None:
        self._sums: list[Tensor] = []

    def add(self, query: Tensor, key: Tensor) -> Gram:
        """Add a strip of queries and keys ``(B, C, h, W)``, every pixel once, and return itself."""
        query, key = (rearrange(x, "b c h w -> b (h w) c") for x in (query, key))
        if query.dtype == torch.float16:  # sums over thousands of pixels exceed it
            query, key = query.float(), key.float()
        # of a strip in its own dtype, of the map in float64
        products = [of_query.mT @ of_key for of_query, of_key in zip(query, key, strict=True)]  # bmm would copy
        sums = [x.double() for x in (torch.stack(products), query.square().sum(dim=1), key.square().sum(dim=1))]
        self._sums = [a + b for a, b in zip(self._sums, sums, strict=True)] if self._sums else sums
        return self

    def matrix(self, temperature: Tensor, project: nn.Conv2d) -> Tensor:
        """Return the matrix ``(B, C_out, C)`` of attention and the projection behind it, to apply to the values."""
        gram, query, key = self._sums
        gram = gram / (query.sqrt().clamp_min(EPS)[:, :, None] * key.sqrt().clamp_min(EPS)[:, None])
        # channels of one head alone attend to each other: the blocks on the diagonal
        heads = temperature.shape[0]
        blocks = rearrange(gram, "b (i c) (j d) -> b i j c d", i=heads, j=heads).diagonal(dim1=1, dim2=2)
        attention = (rearrange(blocks, "b c d heads -> b heads c d") * temperature.double()).softmax(dim=-1)
        weight = rearrange(project.weight.double(), "out (heads c) 1 1 -> out heads c", heads=heads)
        matrix = einsum(weight, attention, "out heads c, b heads c d -> b out heads d")
        return rearrange(matrix, "b out heads d -> b out (heads d)")


class HeldMatrices:
    """The matrices of one channel attention through a sequence, steady although something hot enters.

    A matrix is gathered of the whole picture, so whatever enters it changes the background too. Through a sequence each
    is the median of what the frames before gave, so that nothing that is there for less than half of them counts; a
    lasting change is followed at a slow pace. Every tenth frame is looked at, 31 of them count.
    """

    EVERY = 10
    """Frames between two that are looked at."""
    KEPT = 31
    """How many count."""
    PACE = 0.1
    """Share of the way to the median that is gone each time."""

    def __init__(self) -> None:
        self._frame = 0
        self.reset()

    def reset(self) -> None:
        """Forget the sequence: the next frame begins another."""
        self._kept: list[deque[Tensor]] = []
        self._now: list[Tensor] = []
        self._calls = 0

    def next_frame(self) -> None:
        """Say that what follows belongs to another frame."""
        self._frame += 1
        self._calls = 0

    @property
    def wanted(self) -> bool:
        """Whether the next matrix will be worked out."""
        return self._calls >= len(self._now) or self._frame % self.EVERY == 0

    def of(self, make: Callable[[], Tensor]) -> Tensor:
        """Return the held matrix of the attention's next call in this frame; ``make`` works out the frame's own."""
        wanted, call = self.wanted, self._calls
        self._calls += 1
        if call == len(self._now):
            first = make()
            self._now.append(first)
            # as if the first frame had been there all along, so that what enters next does not count
            self._kept.append(deque([first] * self.KEPT, self.KEPT))
        elif wanted:
            self._kept[call].append(make())
            usual = torch.stack(tuple(self._kept[call])).median(dim=0).values
            self._now[call] = torch.lerp(self._now[call], usual, self.PACE)
        return self._now[call]


def mix(matrix: Tensor, x: Tensor, onto: Tensor | None = None) -> Tensor:
    """Return the channels of ``x`` mixed by each picture's own matrix ``(B, C_out, C)``, added onto a map."""
    pixels = rearrange(x, "b c h w -> b (h w) c")
    if onto is None:
        mixed = torch.bmm(pixels, matrix.mT)
    else:
        mixed = torch.baddbmm(rearrange(onto, "b c h w -> b (h w) c"), pixels, matrix.mT)
    return rearrange(mixed, "b (h w) c -> b c h w", h=x.shape[2])
