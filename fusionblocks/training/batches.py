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
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

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
        self.length, self.batch, self.accumulate = length, batch, accumulate
        self.processes, self.rank, self.seed = processes, rank, seed
        self.epoch = self.start = 0

    def groups(self, epoch: int) -> list[list[int]]:
        """Return the pairs of each step of an epoch, of all processes together."""
        order = np.random.default_rng([self.seed, epoch]).permutation(self.length).tolist()
        size = self.batch * self.accumulate * self.processes
        groups = [order[i : i + size] for i in range(0, self.length, size)]
        if len(groups) > 1 and len(groups[-1]) < self.processes:
            groups[-2] += groups.pop()
        return groups

    def __len__(self) -> int:
        """Return the steps of an epoch."""
        size = self.batch * self.accumulate * self.processes
        steps, left = divmod(self.length, size)
        return max(1, steps + (left >= self.processes))

    def set_position(self, epoch: int, start: int = 0) -> None:
        """Let the next iteration begin at a step of an epoch."""
        self.epoch, self.start = epoch, start

    def steps(self) -> Iterator[tuple[int, list[list[int]]]]:
        """Yield for each step the number of its pairs in all, and this process's batches."""
        for group in self.groups(self.epoch)[self.start :]:
            mine = np.array_split(group[self.rank :: self.processes], self.accumulate)
            yield len(group), [part.tolist() for part in mine if len(part)]

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield batches of (epoch, index), as :class:`SeededItems` takes them."""
        for _, batches in self.steps():
            for batch in batches:
                yield [(self.epoch, index) for index in batch]


class SeededItems(Dataset[Item]):
    """A dataset's items after a transform, each drawn under a seed of its own.

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
    """A stream's items after a transform, each drawn under a seed of its own; it begins again when it ends.

    Args:
        data: The stream, which deals its items to workers and processes itself.
        transforms: Applied in turn.
        seed: Of all random numbers.
        rank: Which process this is.
    """

    def __init__(self, data: IterableDataset[Item], transforms: Sequence[Transform], seed: int, rank: int) -> None:
        self.data, self.transforms, self.seed, self.rank = data, tuple(transforms), seed, rank
        self.round = 0

    def __iter__(self) -> Iterator[Item]:
        worker = getattr(get_worker_info(), "id", 0)
        for round in itertools.count(self.round):
            numbers = itertools.count()
            if hasattr(self.data, "set_epoch"):
                self.data.set_epoch(round)
            with seeded(self.seed, self.rank, worker, round):
                items = iter(self.data)
            for number in numbers:
                with seeded(self.seed, self.rank, worker, round, number):
                    try:
                        item = next(items)
                    except StopIteration:
                        break
                    for transform in self.transforms:
                        item = transform(item)
                yield item
            if not number:
                raise ValueError("data must give at least one pair to every worker, a stream gave none")


def open_loader(
    items: SeededItems | SeededStream, plan: EpochPlan | None, batch: int, *, workers: int, pin_memory: bool
) -> DataLoader[Any]:
    """Return the loader of a plan's batches, or of a stream's."""
    options: dict[str, Any] = {
        "num_workers": workers,
        "pin_memory": pin_memory,
        "persistent_workers": workers > 0,
        "generator": torch.Generator(),  # of the workers' seeds: the global one belongs to the network
    }
    if plan is None:
        return DataLoader(items, batch, **options)
    return DataLoader(items, batch_sampler=plan, **options)
