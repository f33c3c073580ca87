"""Pairs as a stream: nothing kept but a few items in flight, several crops from each decoded pair."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Generator
from torch.utils.data import IterableDataset, get_worker_info

from fusionblocks._support.checks import check_whole
from fusionblocks.data._draws import Draw, generator_of
from fusionblocks.data.paired import PairedImages


class StreamedPairs(IterableDataset[dict[str, Any]]):
    """A stream of all items in a drawn order, dealt out to processes and their workers, for sets larger than memory.

    Where decoding is what takes the time, ``repeats`` takes several versions (crops, flips) from each decoded pair; a
    buffer then mixes them, so that those of one pair seldom share a batch. What the versions are depends on the pairs'
    seed and epoch alone; which comes when depends on the number of workers too.

    Give the stream to a :class:`torch.utils.data.DataLoader` as it is. Together all processes and workers yield every
    version of every pair once in an epoch, none dropped or doubled; some may yield a few more than others. Where
    something else deals out what a stream yields, as accelerate's ``prepare`` does, leave ``world_size`` at 1.

    Args:
        pairs: The pairs, with the transform that makes items of them.
        repeats: Versions of each pair in an epoch.
        shuffle: Whether the order is drawn.
        buffer: How many items the buffer holds in each worker; used if ``repeats`` is above 1 and ``shuffle`` is set.
        rank: Which process this is, below ``world_size``.
        world_size: How many processes share the pairs.

    Raises:
        TypeError: If ``pairs`` is not :class:`PairedImages`.
        ValueError: If a number is out of range.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from pathlib import Path
        >>> from fusionblocks.data import PairedCrop, PairedImages, StreamedPairs
        >>> from fusionblocks.image import write_image
        >>> root = Path(tempfile.mkdtemp())
        >>> for folder in ("ir", "vi"):
        ...     (root / folder).mkdir()
        ...     for name in "123":
        ...         write_image(root / folder / f"{name}.png", np.zeros((48, 64), np.uint8))
        >>> pairs = PairedImages(root / "ir", root / "vi", transform=PairedCrop(32))
        >>> sorted(item["name"] for item in StreamedPairs(pairs, repeats=2))
        ['1', '1', '2', '2', '3', '3']
    """

    def __init__(
        self,
        pairs: PairedImages,
        *,
        repeats: int = 1,
        shuffle: bool = True,
        buffer: int = 64,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if not isinstance(pairs, PairedImages):
            raise TypeError(f"pairs must be PairedImages, got {type(pairs).__name__}")
        self.pairs = pairs
        self.repeats = check_whole("repeats", repeats, 1)
        self.shuffle = shuffle
        self.buffer = check_whole("buffer", buffer, 1)
        self.world_size = check_whole("world_size", world_size, 1)
        self.rank = check_whole("rank", rank, 0)
        if self.rank >= self.world_size:
            raise ValueError(f"rank must be below world_size, got {rank} of {world_size}")

    def __len__(self) -> int:
        """How many items this process yields in an epoch, with all its workers."""
        return self.repeats * len(range(self.rank, len(self.pairs), self.world_size))

    def set_epoch(self, epoch: int) -> None:
        """Let order and items be drawn anew, in this process and in its workers; call it between two epochs.

        Args:
            epoch: The number of the epoch, from 0.
        """
        self.pairs.set_epoch(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        first, step = self.rank + self.world_size * number, self.world_size * workers
        seed, epoch = self.pairs.seed, self.pairs.epoch
        items = self._items(self._order(generator_of(seed, Draw.STREAM, epoch))[first::step])
        if self.repeats > 1 and self.shuffle:
            items = self._mixed(items, generator_of(seed, Draw.MIXING, epoch, first))
        return items

    def _order(self, generator: Generator) -> list[int]:
        if not self.shuffle:
            return list(range(len(self.pairs)))
        return torch.randperm(len(self.pairs), generator=generator).tolist()

    def _items(self, order: list[int]) -> Iterator[dict[str, Any]]:
        for index in order:
            decoded = self.pairs.read(index)
            for repeat in range(self.repeats):
                yield self.pairs.transformed(decoded, index, repeat)

    def _mixed(self, items: Iterator[dict[str, Any]], generator: Generator) -> Iterator[dict[str, Any]]:
        """Yield items from a full buffer by chance, each place refilled by the next that comes."""
        held: list[dict[str, Any]] = []
        for item in items:
            if len(held) < self.buffer:
                held.append(item)
                continue
            place = int(torch.randint(self.buffer, (), generator=generator))
            held[place], item = item, held[place]
            yield item
        for place in torch.randperm(len(held), generator=generator).tolist():
            yield held[place]
