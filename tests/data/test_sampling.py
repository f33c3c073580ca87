"""The order of an epoch: drawn, dealt out, taken up again."""

from __future__ import annotations

import pickle

import pytest
from torch.utils.data import DataLoader

from fusionblocks.data import ResumableSampler


def test_an_epoch_has_each_item_once_in_an_order_of_its_own() -> None:
    sampler = ResumableSampler(range(50), seed=2)
    orders = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
        assert list(sampler) == orders[-1]
        assert sorted(orders[-1]) == list(range(50))
    assert len({tuple(order) for order in orders}) == 3
    assert list(ResumableSampler(50, seed=3)) != orders[0] == list(ResumableSampler(50, seed=2))
    assert list(ResumableSampler(5, shuffle=False)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_processes_share_an_epoch_without_loss_or_double(world_size: int) -> None:
    shares = [ResumableSampler(20, seed=1, rank=rank, world_size=world_size) for rank in range(world_size)]
    dealt = [list(share) for share in shares]
    assert [len(share) for share in shares] == [len(items) for items in dealt]
    assert sorted(item for items in dealt for item in items) == list(range(20))
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
    in_turn = [items[turn] for turn in range(len(dealt[0])) for items in dealt if turn < len(items)]
    assert in_turn == list(ResumableSampler(20, seed=1)), "two processes see what one does with twice the batch"


@pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 2), (1, 3), (3, 2)])
def test_an_epoch_is_taken_up_by_any_number_of_processes(before: int, after: int) -> None:
    sampler = ResumableSampler(31, seed=4, world_size=before)
    sampler.set_epoch(5)
    whole = list(ResumableSampler.order(sampler))
    sampler.advance(4 * before)
    sampler.advance(2 * before)
    state = pickle.loads(pickle.dumps(sampler.state_dict()))
    resumed = [ResumableSampler(31, seed=4, rank=rank, world_size=after) for rank in range(after)]
    for share in resumed:
        share.load_state_dict(state)
        share.set_epoch(5)
        assert share.epoch == 5
        assert len(share) == len(list(share))
    assert sorted(item for share in resumed for item in share) == sorted(whole[6 * before :])


def test_the_position_is_what_was_used_not_what_workers_fetched() -> None:
    sampler = ResumableSampler(12, seed=0)
    loader = DataLoader(list(range(12)), batch_size=2, sampler=sampler, num_workers=1, prefetch_factor=4)
    batches = iter(loader)
    used = [next(batches).tolist() for _ in range(2)]
    for batch in used:
        sampler.advance(len(batch))
    again = ResumableSampler(12, seed=0)
    again.load_state_dict(sampler.state_dict())
    assert sum(used, []) + list(again) == list(ResumableSampler(12, seed=0))


def test_the_next_epoch_begins_after_the_last_item() -> None:
    sampler = ResumableSampler(6)
    first = list(sampler)
    sampler.advance(6)
    assert (sampler.epoch, sampler.position) == (1, 0)
    assert sorted(sampler) == sorted(first)
    assert list(sampler) != first
    sampler.advance(2)
    sampler.set_epoch(1)
    assert sampler.position == 2
    sampler.set_epoch(2)
    assert sampler.position == 0
    with pytest.raises(ValueError, match="at most the 6 items that are left, got 7"):
        sampler.advance(7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": 9}, "is of another order: length 9, here 8"),
        ({"seed": 5}, "is of another order: seed 5, here 0"),
        ({"shuffle": False}, "is of another order: shuffle False, here True"),
        ({"position": 8}, "position must be below 8, got 8"),
        ({"epoch": -1}, "epoch must be at least 0, got -1"),
    ],
)
def test_a_state_of_another_order_is_refused(change: dict, message: str) -> None:
    sampler = ResumableSampler(8)
    with pytest.raises(ValueError, match=message):
        sampler.load_state_dict({**sampler.state_dict(), **change})
    with pytest.raises(ValueError, match="has no 'position'"):
        sampler.load_state_dict({"epoch": 0})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": 0}, "data must be at least 1, got 0"),
        ({"data": []}, "data must be at least 1, got 0"),
        ({"rank": 2, "world_size": 2}, "rank must be below world_size, got 2 of 2"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_what_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResumableSampler(**{"data": 4, **arguments})
