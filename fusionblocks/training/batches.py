"""Which pairs a step sees: the same whatever the number of workers, and after a resumption as without one.

The order of an epoch follows from the seed and the epoch, and every item is made under a seed of its own, which follows
from the seed, the epoch and the item. So nothing has to be remembered but the position.
"""

from __future__ import annotations

import contextlib
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
    process's share into ``accumulate`` batches. So each pair comes once an epoch. A last group that is too small to
    give every process a pair joins the group before it.

    Args:
        length: Number of pairs.
        batch: Pairs of a batch.
        accumulate: Batches of a step.
        processes: Number of processes.
        rank: Which of them this is.
        seed: Of the order.

    Raises:
        ValueError: If there are fewer pairs than processes.
    """

    def __init__(
        self, length: int, batch: int, *, accumulate: int = 1, processes: int = 1, rank: int = 0, seed: int = 0
    ) -> None:
        if length < processes:
            raise ValueError(f"data must hold a pair for each of {processes} processes, got {length}")
        self.sampler = ResumableSampler(length, seed=seed)
        self.accumulate, self.processes, self.rank = accumulate, processes, rank
        self.group_size = batch * accumulate * processes
        self.start = 0

    def __len__(self) -> int:
        """Return the steps of an epoch."""
        steps, left = divmod(self.sampler.length, self.group_size)
        return max(1, steps + (left >= self.processes))

    def set_position(self, epoch: int, start: int = 0) -> None:
        """Let the next iteration begin at a step of an epoch."""
        self.sampler.set_epoch(epoch)
        self.start = start

    def steps(self) -> Iterator[tuple[int, list[list[int]]]]:
        """Yield for each step the number of its pairs, those of all processes, and this process's batches of them."""
        for group in self._groups()[self.start :]:
            mine = np.array_split(group[self.rank :: self.processes], self.accumulate)
            yield len(group), [part.tolist() for part in mine if len(part)]

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield batches of (epoch, index), as :class:`SeededItems` takes them."""
        for _, batches in self.steps():
            for batch in batches:
                yield [(self.sampler.epoch, index) for index in batch]

    def _groups(self) -> list[list[int]]:
        order, size = self.sampler.order(), self.group_size
        groups = [order[i : i + size] for i in range(0, len(order), size)]
        if len(groups) > 1 and len(groups[-1]) < self.processes:
            last = groups.pop()
            groups[-1] += last
        return groups


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
