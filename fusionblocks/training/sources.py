"""Where the steps of a phase get their batches from: a dataset gone through in epochs, or a stream without end."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from fusionblocks.data import Compose, PairedImages, StreamedPairs
from fusionblocks.training.batches import EpochPlan, Item, SeededItems, SeededStream, Transform
from fusionblocks.training.recipe import PhaseRecipe


class Step(NamedTuple):
    """What a step learns from.

    Args:
        total: Number of pairs, those of all processes.
        batches: This process's batches.
        waited: Seconds spent waiting for them.
    """

    total: int
    batches: list[dict[str, Any]]
    waited: float


class Place(NamedTuple):
    """Which process this is, of how many, with how many workers, and whether batches go to a GPU."""

    rank: int = 0
    processes: int = 1
    workers: int = 0
    pin_memory: bool = False


class DatasetSource:
    """The steps of a dataset's epochs.

    Args:
        data: The dataset.
        transforms: Done to each item.
        recipe: The phase.
        seed: Of the order and of all draws.
        place: Which process this is.
        least: Pairs that a batch must have.
    """

    def __init__(
        self,
        data: Dataset[Item],
        transforms: list[Transform],
        recipe: PhaseRecipe,
        seed: int,
        place: Place,
        least: int = 1,
    ) -> None:
        if isinstance(data, PairedImages):
            data, transforms = _with_transforms(data, transforms, seed), []
        self.data, self.items = data, SeededItems(data, transforms, seed)
        self.plan = EpochPlan(
            len(data),  # type: ignore[arg-type]
            recipe.batch,
            accumulate=recipe.accumulate,
            processes=place.processes,
            rank=place.rank,
            seed=seed,
            least=least,
        )
        self.steps_per_epoch, self.smallest = len(self.plan), self.plan.smallest
        self.loader = DataLoader(
            self.items, batch_sampler=self.plan, persistent_workers=place.workers > 0, **_options(place)
        )

    def first(self) -> Item:
        """Return a pair as the network sees it."""
        return self.items[0, 0]

    def steps(self, done: int) -> Iterator[Step]:
        """Yield the steps of an epoch that are left after so many steps."""
        epoch, start = divmod(done, self.steps_per_epoch)
        self.plan.set_position(epoch, start)
        if hasattr(self.data, "set_epoch"):
            self.data.set_epoch(epoch)
        batches = iter(self.loader)
        for total, parts in self.plan.steps():
            begun = time.perf_counter()
            came = [next(batches) for _ in parts]
            yield Step(total, came, time.perf_counter() - begun)


class StreamSource:
    """The steps of a stream that begins again when it ends; the phase is one long epoch.

    All batches are full, so that processes agree about the pairs of a step without asking; no pair is dropped for it.

    To resume, the stream is gone through again up to the position, which takes the time of reading it.

    Args:
        data: The stream.
        transforms: Done to each item.
        recipe: The phase, which must count in steps.
        seed: Of all draws.
        place: Which process this is.

    Raises:
        ValueError: If the phase counts in epochs.
    """

    def __init__(
        self, data: IterableDataset[Item], transforms: list[Transform], recipe: PhaseRecipe, seed: int, place: Place
    ) -> None:
        if recipe.steps is None:
            raise ValueError(f"phase {recipe.name!r} learns from a stream and needs steps instead of epochs")
        if isinstance(data, StreamedPairs):
            pairs, transforms = _with_transforms(data.pairs, transforms, seed), []
            data = StreamedPairs(
                pairs,
                repeats=data.repeats,
                shuffle=data.shuffle,
                buffer=data.buffer,
                rank=place.rank,
                world_size=place.processes,
            )
        self.data, self.items = data, SeededStream(data, transforms, seed, place.rank)
        self.steps_per_epoch, self.smallest = recipe.steps, recipe.batch
        self.total = recipe.batch * recipe.accumulate * place.processes
        self.accumulate = recipe.accumulate
        self.batch = recipe.batch
        self.loader = DataLoader(
            self.items, recipe.batch, collate_fn=functools.partial(_whole, recipe.batch), **_options(place)
        )

    def first(self) -> Item:
        """Return a pair as the network sees it."""
        return next(iter(self.items))

    def steps(self, done: int) -> Iterator[Step]:
        """Yield the steps that are left after so many steps."""
        batches = self._batches()
        for _ in range(done * self.accumulate):
            next(batches)
        while True:
            begun = time.perf_counter()
            came = [next(batches) for _ in range(self.accumulate)]
            yield Step(self.total, came, time.perf_counter() - begun)

    def _batches(self) -> Iterator[dict[str, Any]]:
        """Yield full batches; what is left of an epoch, by any worker, waits until others fill its batch."""
        left: list[Item] = []
        for epoch in itertools.count():
            self.items.epoch = epoch
            if hasattr(self.data, "set_epoch"):
                self.data.set_epoch(epoch)
            came = 0
            for batch in self.loader:
                came += 1
                if isinstance(batch, dict):
                    yield batch
                    continue
                left += batch
                if len(left) >= self.batch:
                    yield default_collate(left[: self.batch])
                    del left[: self.batch]
            if not came:
                raise ValueError(f"data must give pairs in every epoch, got none in epoch {epoch}")


def _whole(batch: int, items: list[Item]) -> dict[str, Any] | list[Item]:
    """Return a full batch, or the items of one that is not full."""
    return default_collate(items) if len(items) == batch else items


def open_source(
    data: Dataset[Item], transforms: list[Transform], recipe: PhaseRecipe, seed: int, place: Place, least: int = 1
) -> DatasetSource | StreamSource:
    """Return the source of a phase's steps; a stream's batches are all full."""
    if isinstance(data, IterableDataset):
        return StreamSource(data, transforms, recipe, seed, place)
    return DatasetSource(data, transforms, recipe, seed, place, least)


def _with_transforms(pairs: PairedImages, transforms: list[Transform], seed: int) -> PairedImages:
    """Return pairs that are transformed before they become floats, which is faster."""
    before = [] if pairs.transform is None else [pairs.transform]
    made = pairs.subset(range(len(pairs)), transform=Compose([*before, *transforms]))
    made.seed = seed
    return made


def _options(place: Place) -> dict[str, Any]:
    return {
        "num_workers": place.workers,
        "pin_memory": place.pin_memory,
        "generator": torch.Generator(),  # of the workers' seeds: the global one belongs to the network
    }
