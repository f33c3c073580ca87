"""An order of items that every process agrees on and that can be taken up in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized

import torch
from torch.utils.data import Sampler

from fusionblocks._support.checks import check_whole
from fusionblocks.data._draws import Draw, generator_of


class ResumableSampler(Sampler[int]):
    """The items of an epoch in a drawn order, dealt out to processes, from any position on.

    The order depends on ``seed`` and the epoch alone. Processes take the items in turn: together they get each item
    once, none is dropped or doubled, so some may get one item more than others.

    Workers fetch ahead of what a training loop has used, so the sampler cannot know the position by itself: call
    :meth:`advance` for each batch that has been used. The position counts the items of all processes, which lets a run
    go on with another number of them.

    Args:
        data: The dataset, or the number of its items.
        shuffle: Whether the order is drawn; otherwise items come as they are.
        seed: Of the order.
        rank: Which process this is, below ``world_size``.
        world_size: How many processes share the items.

    Attributes:
        epoch: The epoch whose order is dealt out.
        position: How many items of it have been used, by all processes together.

    Raises:
        ValueError: If there are no items or the rank is not below ``world_size``.

    Example:
        >>> from fusionblocks.data import ResumableSampler
        >>> sampler = ResumableSampler(10, seed=1)
        >>> order = list(sampler)
        >>> sampler.advance(4)
        >>> again = ResumableSampler(10, seed=1)
        >>> again.load_state_dict(sampler.state_dict())
        >>> list(again) == order[4:]
        True
    """

    def __init__(
        self, data: Sized | int, *, shuffle: bool = True, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        self.length = check_whole("data", data if isinstance(data, int) else len(data), 1)
        self.shuffle = shuffle
        self.seed = check_whole("seed", seed, 0)
        self.world_size = check_whole("world_size", world_size, 1)
        self.rank = check_whole("rank", rank, 0)
        if self.rank >= self.world_size:
            raise ValueError(f"rank must be below world_size, got {rank} of {world_size}")
        self.epoch = 0
        self.position = 0

    def __len__(self) -> int:
        """How many items of the epoch are left for this process."""
        return len(range(self.position + self.rank, self.length, self.world_size))

    def __iter__(self) -> Iterator[int]:
        return iter(self.order()[self.position + self.rank :: self.world_size])

    def order(self) -> list[int]:
        """Return all items of the epoch in their order."""
        if not self.shuffle:
            return list(range(self.length))
        return torch.randperm(self.length, generator=generator_of(self.seed, Draw.ORDER, self.epoch)).tolist()

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch; the one that is running goes on from its position.

        Args:
            epoch: Its number, from 0.
        """
        if check_whole("epoch", epoch, 0) != self.epoch:
            self.epoch, self.position = epoch, 0

    def advance(self, count: int) -> None:
        """Note that items have been used; after the last one the next epoch begins.

        Args:
            count: How many, by all processes together.

        Raises:
            ValueError: If the epoch has not that many left.
        """
        position = self.position + check_whole("count", count, 0)
        if position > self.length:
            raise ValueError(
                f"count must be at most the {self.length - self.position} items that are left, got {count}"
            )
        finished = position == self.length
        self.epoch, self.position = (self.epoch + 1, 0) if finished else (self.epoch, position)

    def state_dict(self) -> dict[str, int | bool]:
        """Return where the sampler stands."""
        return {
            "epoch": self.epoch,
            "position": self.position,
            "length": self.length,
            "shuffle": self.shuffle,
            "seed": self.seed,
        }

    def load_state_dict(self, state: Mapping[str, int | bool]) -> None:
        """Go on where another sampler of the same order stood.

        Args:
            state: What :meth:`state_dict` returned, of any number of processes.

        Raises:
            ValueError: If it was of another order: other items, another seed, drawn or not.
        """
        for name, ours in self.state_dict().items():
            if name not in state:
                raise ValueError(f"the sampler's state has no {name!r}")
            if name not in ("epoch", "position") and state[name] != ours:
                raise ValueError(f"the sampler's state is of another order: {name} {state[name]}, here {ours}")
        position = check_whole("position", state["position"], 0)
        if position >= self.length:
            raise ValueError(f"the sampler's position must be below {self.length}, got {position}")
        self.epoch, self.position = check_whole("epoch", state["epoch"], 0), position
