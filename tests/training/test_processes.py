"""Two processes that learn together, started as a user starts them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fusionblocks.training import read_log
from tests.training.toy import main as toy_main

ROOT = Path(__file__).parents[2]


def run_two(*arguments: object, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, "-m", "tests.training.toy", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=seconds)


def test_two_processes_learn_what_one_does_with_twice_the_batch(tmp_path: Path) -> None:
    # seven pairs: the last step has three, dealt two and one; the gradients are weighted so that it makes no difference
    alone, both = tmp_path / "alone", tmp_path / "both"
    settings = ("--plain", "--number", 7, "--epochs", 2)
    toy_main([str(alone), *map(str, settings), "--batch", "4"])
    finished = run_two(both, *settings, "--batch", 2, "--diary", tmp_path / "diary")
    assert finished.returncode == 0, finished.stderr

    ours, theirs = ([line for line in read_log(folder) if "loss" in line] for folder in (alone, both))
    assert [line["pairs"] for line in theirs] == [4, 3, 4, 3] == [line["pairs"] for line in ours]
    for name in ("loss", "gradient"):
        torch.testing.assert_close(
            *(torch.tensor([line[name] for line in lines]) for lines in (theirs, ours)), rtol=1e-5, atol=1e-5
        )
    weights = [load_file(folder / "weights" / "model.safetensors") for folder in (both, alone)]
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-5)

    # each process looks at one pair before it starts; then every pair comes once an epoch
    diaries = [Path(f"{tmp_path}/diary_{rank}").read_text().split()[1:] for rank in range(2)]
    assert [len(diary) for diary in diaries] == [8, 6]
    epochs = [diaries[0][:4] + diaries[1][:3], diaries[0][4:] + diaries[1][3:]]
    assert all(Counter(epoch) == Counter(map(str, range(7))) for epoch in epochs)

    # one log, one checkpoint a place, scores of every validation pair once
    validated = [line["validation"] for line in read_log(both) if "validation" in line]
    assert validated == [
        pytest.approx(line["validation"], rel=1e-4) for line in read_log(alone) if "validation" in line
    ]
    names = [path.name for path in sorted((both / "checkpoints").iterdir())]
    assert names == [path.name for path in sorted((alone / "checkpoints").iterdir())]


def test_the_death_of_one_process_ends_the_run_with_an_error(tmp_path: Path) -> None:
    begun = time.monotonic()
    finished = run_two(tmp_path / "run", "--epochs", 200, "--deadly", 3, "--seconds", 0.01)
    assert finished.returncode != 0
    assert "Signal 9 (SIGKILL) received" in finished.stderr
    assert time.monotonic() - begun < 110
    assert len(read_log(tmp_path / "run")) < 100
