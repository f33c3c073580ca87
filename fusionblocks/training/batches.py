"""Which pairs a step sees: the same whatever the number of workers, and after a resumption as without one.

The order of an epoch follows from the seed and the epoch, and every item is made under a seed of its own, which follows
from the seed, the epoch and the item. So nothing has to be remembered but the position.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from fusionblocks.data import ResumableSampler

Item = dict[str, Any]
Transform = Callable[[Item], Item]


@contextlib.contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Seed the CPU's random numbers of PyTorch, NumPy and Python within, and put the old states back afterwards."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(seed)  # leaves the devices alone
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


class EpochPlan:
    """The batches of one process, epoch by epoch: a batch sampler that can start in the middle.

    The pairs of an epoch are shuffled, cut into one group a step, and every group is dealt to the processes, and each
    process's share into batches. So each pair comes once an epoch.

    No batch has fewer than ``least`` pairs. A last group that is too small for it takes pairs from the group before, or
    joins it where that one has none to spare; a share that does not go into batches of ``least`` to ``batch`` pairs,
    such as three in batches of two, makes one of them larger. Only if there are too few pairs altogether is a batch
    smaller.

    Args:
        length: Number of pairs.
        batch: Pairs of a batch.
        accumulate: Batches of a step.
        processes: Number of processes.
        rank: Which of them this is.
        seed: Of the order.
        least: Pairs that a batch must have, at most ``batch``.

    Raises:
        ValueError: If there are fewer pairs than processes.
    """

    def __init__(
        self,
        length: int,
        batch: int,
        *,
        accumulate: int = 1,
        processes: int = 1,
        rank: int = 0,
        seed: int = 0,
        least: int = 1,
    ) -> None:
        if length < processes:
            raise ValueError(f"data must hold a pair for each of {processes} processes, got {length}")
        self.sampler = ResumableSampler(length, seed=seed)
        self.batch, self.least, self.processes, self.rank = batch, least, processes, rank
        self.group_sizes = _cut(length, batch * accumulate * processes, least * processes)
        self.start = 0

    def __len__(self) -> int:
        """Return the steps of an epoch."""
        return len(self.group_sizes)

    @property
    def smallest(self) -> int:
        """The pairs of the smallest batch that any process gets."""
        shares = {len(range(rank, size, self.processes)) for size in self.group_sizes for rank in range(self.processes)}
        return min(share // self._number(share) for share in shares)

    def set_position(self, epoch: int, start: int = 0) -> None:
        """Let the next iteration begin at a step of an epoch."""
        self.sampler.set_epoch(epoch)
        self.start = start

    def steps(self) -> Iterator[tuple[int, list[list[int]]]]:
        """Yield for each step the number of its pairs, those of all processes, and this process's batches of them."""
        order = iter(self.sampler.order())
        for number, size in enumerate(self.group_sizes):
            group = list(itertools.islice(order, size))
            if number >= self.start:
                mine = group[self.rank :: self.processes]
                yield size, [part.tolist() for part in np.array_split(mine, self._number(len(mine)))]

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield batches of (epoch, index), as :class:`SeededItems` takes them."""
        for _, batches in self.steps():
            for batch in batches:
                yield [(self.sampler.epoch, index) for index in batch]

    def _number(self, share: int) -> int:
        """Return the number of batches of a share: as few as hold it, or fewer if these were too small."""
        number = -(-share // self.batch)
        return number if share // number >= self.least else max(1, share // self.least)


def _cut(length: int, size: int, least: int) -> list[int]:
    """Return the sizes of groups that hold ``length`` in all: ``size``, and for the last two what leaves ``least``."""
    whole, left = divmod(length, size)
    if left == 0:
        return [size] * whole
    if left >= least or whole == 0:
        return [size] * whole + [left]
    last = size + left
    return [size] * (whole - 1) + ([last - least, least] if last >= 2 * least else [last])


class SeededItems(Dataset[Item]):
    """A dataset's items after some transforms, each drawn under a seed of its own.

    Args:
        data: The dataset, whose items are dicts.
        transforms: Applied in turn.
        seed: Of all random numbers.
    """

    def __init__(self, data: Dataset[Item], transforms: Sequence[Transform], seed: int) -> None:
        self.data, self.transforms, self.seed = data, tuple(transforms), seed

    def __getitem__(self, where: tuple[int, int]) -> Item:
        epoch, index = where
        with seeded(self.seed, epoch, index):
            item = self.data[index]
            for transform in self.transforms:
                item = transform(item)
        return item


class SeededStream(IterableDataset[Item]):
    """A stream's items after some transforms, each drawn under a seed of its own.

    Args:
        data: The stream, which deals its items to workers and processes itself.
        transforms: Applied in turn.
        seed: Of all random numbers.
        rank: Which process this is.
    """

    def __init__(self, data: IterableDataset[Item], transforms: Sequence[Transform], seed: int, rank: int) -> None:
        self.data, self.transforms, self.seed, self.rank = data, tuple(transforms), seed, rank
        self.epoch = 0

    def __iter__(self) -> Iterator[Item]:
        numbers = self.seed, self.rank, getattr(get_worker_info(), "id", 0), self.epoch
        with seeded(*numbers):
            items = iter(self.data)
        number = 0
        while True:
            with seeded(*numbers, number := number + 1):
                try:
                    item = next(items)
                except StopIteration:
                    return
                for transform in self.transforms:
                    item = transform(item)
            yield item
