"""Decoded pictures in a bounded piece of memory, packed so that worker processes share it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

CHUNK = 64 * 2**20  # bytes; few large pieces, because each is a file descriptor when workers are spawned
ALIGNMENT = 64


class Place(NamedTuple):
    """Where a tensor lies."""

    chunk: int
    start: int
    dtype: torch.dtype
    shape: torch.Size


class PictureCache:
    """Named tensors of named items, in no more than ``limit`` bytes.

    Filled before workers start, it is shared: forked workers see the same pages, spawned ones the same shared memory.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.chunks: list[Tensor] = []
        self.places: dict[str, dict[str, Place]] = {}
        self.free = 0  # bytes at the end of the last chunk

    def __len__(self) -> int:
        return len(self.places)

    @property
    def nbytes(self) -> int:
        """The memory that is set aside."""
        return sum(len(chunk) for chunk in self.chunks)

    def add(self, name: str, parts: dict[str, Tensor]) -> bool:
        """Keep an item, or answer that there is no room for it."""
        needed = sum(_aligned(part) for part in parts.values())
        if needed > self.free and not self._grow(needed):
            return False
        places = {}
        for key, part in parts.items():
            chunk = self.chunks[-1]
            start = len(chunk) - self.free
            chunk[start : start + part.nbytes].view(part.dtype).view(part.shape).copy_(part)
            places[key] = Place(len(self.chunks) - 1, start, part.dtype, part.shape)
            self.free -= _aligned(part)
        self.places[name] = places
        return True

    def trim(self) -> None:
        """Give back the memory that is set aside and not used."""
        if self.free:
            self.chunks[-1] = self.chunks[-1][: len(self.chunks[-1]) - self.free].clone()
            self.free = 0

    def get(self, name: str) -> dict[str, Tensor] | None:
        """Return views of an item, to be read alone."""
        places = self.places.get(name)
        return None if places is None else {key: self._view(place) for key, place in places.items()}

    def _view(self, place: Place) -> Tensor:
        size = math.prod(place.shape) * place.dtype.itemsize
        return self.chunks[place.chunk][place.start : place.start + size].view(place.dtype).view(place.shape)

    def _grow(self, needed: int) -> bool:
        size = min(max(CHUNK, needed), self.limit - self.nbytes)
        if size < needed:
            return False
        self.chunks.append(torch.empty(size - size % ALIGNMENT if size > needed else size, dtype=torch.uint8))
        self.free = len(self.chunks[-1])
        return True


def _aligned(part: Tensor) -> int:
    return -(-part.nbytes // ALIGNMENT) * ALIGNMENT
