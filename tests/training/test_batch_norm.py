"""Networks with batch norm over pooled maps: no batch of one pair, no pair lost, an early error where it must be."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from fusionblocks.training import list_recipes, read_log, train
from fusionblocks.training.batches import EpochPlan
from fusionblocks.training.engine import _Phase
from tests.training.scenes import SMALL, scenes, small_recipe
from tests.training.test_processes import run_two
from tests.training.toy import ToyNet, ToyPairs, recipe, toy_train


class Stop(Exception):
    """The run is killed here."""


def steps_of(folder: Path) -> list[dict[str, Any]]:
    """Return what a run logged of its steps, without times."""
    lines = [line for line in read_log(folder) if "loss" in line]
    return [{name: value for name, value in line.items() if name not in ("seconds", "waited")} for line in lines]


def stopped_after(step: int, folder: Path, *arguments: Any, **options: Any) -> None:
    """Train until a step's checkpoint is written."""
    checkpoint = _Phase._checkpoint

    def stopping(phase: _Phase) -> None:
        checkpoint(phase)
        if phase.position.total == step:
            raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Phase, "_checkpoint", stopping)
        with pytest.raises(Stop):
            train(*arguments, output=folder, **options)


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("accumulate", [1, 2, 3])
@pytest.mark.parametrize(("least", "batch"), [(1, 1), (1, 2), (1, 3), (1, 4), (1, 7), (2, 2), (2, 3), (2, 4), (2, 7)])
def test_a_plan_has_no_batch_that_is_too_small_and_loses_no_pair(
    least: int, batch: int, accumulate: int, processes: int
) -> None:
    for length in range(processes, 3 * batch * accumulate * processes + 3):
        plans = [
            EpochPlan(length, batch, accumulate=accumulate, processes=processes, rank=rank, least=least)
            for rank in range(processes)
        ]
        steps = [list(plan.steps()) for plan in plans]
        assert {len(mine) for mine in steps} == {len(plan) for plan in plans} == {len(steps[0])}
        sizes = [len(part) for mine in steps for _, parts in mine for part in parts]
        assert {plan.smallest for plan in plans} == {min(sizes)}
        assert min(sizes) >= (least if length >= least * processes else 1)
        assert max(sizes) <= (3 if least == batch == 2 else batch)
        pairs = Counter(index for mine in steps for _, parts in mine for part in parts for index in part)
        assert pairs == Counter(range(length))
        for number, (total, _) in enumerate(steps[0]):
            dealt = [mine[number] for mine in steps]
            assert all(parts for _, parts in dealt)
            assert [total] * processes == [size for size, _ in dealt]
            assert total == sum(len(part) for _, parts in dealt for part in parts)
        full = length // (batch * accumulate * processes)
        assert [total for total, _ in steps[0]][: full - 1] == [batch * accumulate * processes] * max(0, full - 1)
        for plan, mine in zip(plans, steps, strict=True):  # from the middle on
            plan.set_position(0, start=len(mine) - 1)
            assert list(plan.steps()) == mine[-1:]


@pytest.mark.parametrize("name", list_recipes())
def test_one_pair_too_many_for_the_last_batch_ends_no_training(name: str, tmp_path: Path) -> None:
    changes = {
        f"phases.{phase}.{key}": value
        for phase in SMALL[name][1]
        for key, value in {"steps": None, "epochs": 2, "batch": 4}.items()
    }
    given = small_recipe(name, **changes), scenes(5, 48 if name.startswith("fusionblocks") else 32)
    options: dict[str, Any] = {"device": "cpu", "progress": False}
    train(*given, output=tmp_path / "whole", **options)
    lines = steps_of(tmp_path / "whole")
    has_norm = any(line["batches"] == [3] for line in lines)
    assert has_norm == (name in ("psfusion", "smfnet"))
    expected = [3, 2] if has_norm else [4, 1]
    assert [line["pairs"] for line in lines] == expected * (len(lines) // 2)
    if name == "psfusion":
        stopped_after(3, tmp_path / "killed", *given, checkpoint_every=1, **options)
        train(*given, output=tmp_path / "killed", resume=True, checkpoint_every=1, **options)
        assert steps_of(tmp_path / "killed") == lines


@pytest.mark.parametrize(
    ("batch", "accumulate", "sizes"), [(2, 1, [[2], [2], [3]]), (2, 2, [[2, 2], [3]]), (6, 1, [[5], [2]])]
)
def test_the_log_says_how_many_pairs_each_batch_had(
    tmp_path: Path, batch: int, accumulate: int, sizes: list[list[int]]
) -> None:
    of = recipe(epochs=1, batch=batch, accumulate=accumulate)
    toy_train(tmp_path, ToyPairs(7), of=of, network=ToyNet(pooled=True))
    assert [line["batches"] for line in read_log(tmp_path)] == sizes


@pytest.mark.parametrize(
    ("changes", "pairs", "message"),
    [
        ({"batch": 1}, 4, "batch norm 'gate.2' gets one value a channel and cannot learn; its batch is 1: take 2 or"),
        ({"batch": 4}, 1, "'gate.2' .* the number of pairs is 1, of processes 1: give it 2 pairs or more"),
    ],
)
def test_what_no_plan_can_help_is_said_before_anything_is_learned(
    tmp_path: Path, changes: dict[str, int], pairs: int, message: str
) -> None:
    of = recipe(epochs=1)
    of["phases"]["second"] = {**of["phases"]["first"], **changes}
    of["phases"]["first"] |= {"parts": ["head"], "batch": 1}  # where the norm keeps its statistics, one pair will do
    network = ToyNet(pooled=True)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=f"phase 'second' has batches of one pair, .*{message}"):
        toy_train(tmp_path / "run", ToyPairs(pairs), of=of, network=network)
    assert not (tmp_path / "run").exists()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize("name", ["smfnet", "sgafusion"])
def test_one_pair_at_a_time_teaches_all_others(name: str, tmp_path: Path) -> None:
    phases = SMALL[name][1]
    of = small_recipe(name, **{f"phases.{phase}.{key}": 1 for phase in phases for key in ("batch", "steps")})
    train(of, scenes(2, 32), output=tmp_path / "batch", device="cpu", progress=False)
    train(small_recipe(name), scenes(1, 32), output=tmp_path / "single", device="cpu", progress=False)
    for folder in ("batch", "single"):
        assert {tuple(line["batches"]) for line in steps_of(tmp_path / folder)} == {(1,)}


def test_published_blocks_need_two_pairs(tmp_path: Path) -> None:
    options: dict[str, Any] = {"output": tmp_path / "run", "device": "cpu", "progress": False}
    for of, number in ((small_recipe("psfusion", **{"phases.multi_task.batch": 1}), 4), (small_recipe("psfusion"), 1)):
        with pytest.raises(
            ValueError, match=r"phase 'multi_task' has batches of one pair, .* batch norm '.*\.bn' gets"
        ):
            train(of, scenes(number, 64), **options)
        assert not (tmp_path / "run").exists()


def test_a_stream_of_single_pairs_is_refused_as_well(tmp_path: Path) -> None:
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self) -> Any:
            return iter(ToyPairs(3, noise=0.0).items)

    of = recipe(epochs=None, steps=2, batch=1)
    with pytest.raises(ValueError, match="'gate.2' .* its batch is 1"):
        toy_train(tmp_path / "run", Stream(), of=of, network=ToyNet(pooled=True))
    toy_train(tmp_path / "run", Stream(), of=of, network=ToyNet())
    assert len(read_log(tmp_path / "run")) == 2


def test_each_of_two_processes_has_two_pairs_or_more(tmp_path: Path) -> None:
    finished = run_two(tmp_path / "run", "--pooled", "--number", 11, "--batch", 2, "--epochs", 2)
    assert finished.returncode == 0, finished.stderr
    lines = [line for line in read_log(tmp_path / "run") if "loss" in line]
    assert [(line["pairs"], line["batches"]) for line in lines] == [
        (4, [2]),
        (7, [2, 2]),
    ] * 2  # the other one's seventh: three at once
    finished = run_two(tmp_path / "few", "--pooled", "--number", 3, "--batch", 2)
    assert finished.returncode != 0
    assert "the number of pairs is 3, of processes 2: give it 4 pairs or more" in finished.stderr
