"""A run that is killed goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fusionblocks.training import read_log
from tests.training.toy import main as toy_main
from tests.training.toy import recipe, toy_train

ROOT = Path(__file__).parents[2]
TOY = [sys.executable, "-m", "tests.training.toy"]


def losses(folder: Path) -> list[tuple[Any, ...]]:
    """What a run logged of its steps, without times."""
    return [
        (x["step"], x["epoch"], x["loss"], x["terms"], x["lr"], x["gradient"]) for x in read_log(folder) if "loss" in x
    ]


def scores(folder: Path) -> list[Any]:
    return [(x["step"], x["validation"]) for x in read_log(folder) if "validation" in x]


def weights(folder: Path) -> bytes:
    return (folder / "weights" / "model.safetensors").read_bytes()


def kill_at_step(step: int, folder: Path, *arguments: object) -> int:
    """Start a run, kill it from outside as soon as its log has come to a step, and return the signal it died of."""
    process = subprocess.Popen([*TOY, str(folder), *map(str, arguments)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    log, limit = folder / "log.jsonl", time.monotonic() + 60
    while time.monotonic() < limit and process.poll() is None:
        if log.is_file() and f'"step": {step},' in log.read_text():
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.005)
    _, error = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, error
    return -process.returncode


def test_a_run_killed_twice_in_mid_epoch_has_the_losses_of_one_never_killed(tmp_path: Path) -> None:
    # ten pairs, three a batch: four steps an epoch, a checkpoint after every second step
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    toy_main([str(whole)])
    kill_at_step(3, killed, "--seconds", 0.03)
    assert len(losses(killed)) < len(losses(whole)) == 12
    kill_at_step(7, killed, "--seconds", 0.03, "--workers", 2, "--resume")
    toy_main([str(killed), "--resume"])
    assert losses(killed) == losses(whole)  # bitwise: JSON writes every digit of a float
    assert scores(killed) == scores(whole)
    assert weights(killed) == weights(whole)
    assert not list((killed / "checkpoints").glob(".partial*"))


def test_a_resumed_run_of_two_phases_begins_in_the_right_one(tmp_path: Path) -> None:
    of = recipe(epochs=1)
    of["phases"]["second"] = {"objective": "toy", "steps": 5, "batch": 2, "accumulate": 2, "parts": ["head"]}
    toy_train(tmp_path / "whole", of=of)

    class Stop(Exception):
        pass

    from fusionblocks.training.engine import _Phase

    for steps in (4, 6):  # the last step of the first phase, the second of the next
        folder = tmp_path / str(steps)
        with pytest.MonkeyPatch.context() as patch:
            checkpoint = _Phase._checkpoint

            def stopping(phase: _Phase, checkpoint: Any = checkpoint, steps: int = steps) -> None:
                checkpoint(phase)
                if phase.position.total == steps:
                    raise Stop

            patch.setattr(_Phase, "_checkpoint", stopping)
            with pytest.raises(Stop):
                toy_train(folder, of=of, checkpoint_every=2)
        toy_train(folder, of=of, resume=True, checkpoint_every=2)
        assert losses(folder) == losses(tmp_path / "whole")
        assert weights(folder) == weights(tmp_path / "whole")


def test_a_finished_run_resumes_to_the_same_weights(tmp_path: Path) -> None:
    toy_train(tmp_path)
    before = losses(tmp_path), weights(tmp_path)
    toy_train(tmp_path, resume=True)
    assert (losses(tmp_path), weights(tmp_path)) == before


def test_a_folder_with_a_run_is_not_overwritten(tmp_path: Path) -> None:
    toy_train(tmp_path)
    with pytest.raises(ValueError, match="holds the checkpoints of a run already: resume it"):
        toy_train(tmp_path)


def test_a_checkpoint_of_another_recipe_is_refused_by_name(tmp_path: Path) -> None:
    toy_train(tmp_path)
    of = recipe(epochs=3, losses={"brighter": 2.0})
    before = (tmp_path / "log.jsonl").read_bytes()
    with pytest.raises(ValueError, match=r"another recipe: phases.first.epochs is 2 there and 3 here; .*brighter"):
        toy_train(tmp_path, of=of, resume=True)
    assert (tmp_path / "log.jsonl").read_bytes() == before


def test_of_another_number_of_processes_too(tmp_path: Path) -> None:
    toy_train(tmp_path)
    for about in tmp_path.glob("checkpoints/*/about.json"):
        about.write_text(json.dumps({**json.loads(about.read_text()), "processes": 4}))
    with pytest.raises(ValueError, match="written by 4 processes, not 1"):
        toy_train(tmp_path, resume=True)


@pytest.mark.parametrize("damage", ["state.pt", "about.json"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, damage: str) -> None:
    toy_train(tmp_path)
    last = max((tmp_path / "checkpoints").iterdir())
    (last / damage).write_bytes((last / damage).read_bytes()[:40])
    with pytest.raises(ValueError, match=f"{last.name}.* damaged"):
        toy_train(tmp_path, resume=True)


def test_the_last_and_the_best_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([1.0, 9.0, 2.0, 3.0, 4.0, 5.0])

    def judged(*_: Any) -> tuple[dict[str, float], Tensor]:
        return {"EN": 0.0, "SD": next(values)}, torch.zeros(3, 4, 4)

    monkeypatch.setattr("fusionblocks.training.engine.validate", judged)
    toy_train(tmp_path, of=recipe(epochs=6), validation=[0])
    assert [x.name for x in sorted((tmp_path / "checkpoints").iterdir())] == [
        f"step_{step:09d}" for step in (8, 20, 24)
    ]
