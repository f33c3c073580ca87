"""The command for machines with a GPU: its steps, and what it makes of their rows."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, harness, ops
from fusionblocks.ops import _rows

MACHINE = {"device": "A GPU", "versions": "python 3.12; torch 2.11.0; timm 1.0; triton 3.6.0", "threads": "2"}


def row(case: ops.OpCase, implementation: str, milliseconds: float) -> dict[str, str]:
    about = {"name": case.name, "shapes": case.shapes, "precision": case.precision, "passes": case.passes}
    return {**about, "implementation": implementation, "place": "cuda", "p50_ms": str(milliseconds), **MACHINE}


def find(name: str, text: str, *, backward: bool = False) -> ops.OpCase:
    return next(
        case
        for case in ops.CASES
        if case.name == name and text in case.shapes and case.backward == backward and case.devices == ("cuda",)
    )


def test_rows_say_where_kernels_are_right_and_faster_than_the_best_of_pytorch() -> None:
    won, lost, wrong = (
        find("dual_cross_attention", f"N={n} ", backward=b) for n, b in ((4800, 0), (32400, 0), (4800, 1))
    )
    rows = [
        row(won, "published", 9.0),
        row(won, "sdpa", 2.0),
        row(won, "sdpa, both at once", 1.0),
        row(won, "reference", 3.0),
        row(won, "fusionblocks", 0.2),
        row(won, "kernels", 0.5),
        row(lost, "reference", 3.0),
        row(lost, "kernels", 4.0),
    ]
    found = [*gpu.measured(rows), gpu.wrong(row(wrong, "", 0.0))]
    assert [(x["direction"], x["size"], x["right"], x["faster"]) for x in found] == [
        ("forward", str(5 * 4800 * 64), "yes", "2.00"),
        ("forward", str(5 * 32400 * 64), "yes", "0.75"),
        ("forward and backward", str(5 * 4800 * 64), "no", "0.00"),
    ]
    assert {(x["device"], x["torch"], x["triton"]) for x in found} == {("A GPU", "2.11.0", "3.6.0")}


@pytest.mark.parametrize(
    ("name", "text", "numbers"),
    [
        ("channel_attention", "B=4", 3 * 4 * 64 * 65536 + 8),
        ("channel_attention", "out=64", 3 * 64 * 307200 + 8 + 64 * 64),
        ("folded_token_attention", "T=16", 128 * 307200 + 2 * 2 * 16 * 128 + 2 * 16),
        ("token_attention", "T=16", 2 * 2 * 307200 * 64 + 2 * 16 * 64),
    ],
)
def test_sizes_are_those_of_what_the_operator_gets(name: str, text: str, numbers: int) -> None:
    assert gpu.numbers(row(find(name, text), "kernels", 1.0)) == numbers


def test_a_case_that_was_refused_is_kept_from_the_kernels(tmp_path: Path) -> None:
    case = find("cross_attention", "N=4800")
    about = {key: text for key, text in row(case, "", 0.0).items() if key not in ("implementation", "p50_ms")}
    refused = {"suite": "ops", **about, "reason": "kernels differs by 1.0e-01, more than 3e-05"}
    harness.append_rows(tmp_path / "refused.csv", [refused, {**refused, "suite": "networks", "name": "psfusion"}])
    earlier = [{**row(case, name, 1.0), "copy": "1"} for name in ("reference", "kernels")]
    harness.append_rows(tmp_path / "ops.csv", earlier)
    gpu.write_measured(tmp_path)
    (found,) = _rows.read((tmp_path / _rows.FILE).read_text()).values()
    assert len(found) == 1
    assert not found[0].right
    assert not found[0].serves
    told = gpu.findings(tmp_path, "cuda")
    assert told[1].startswith("NOT MEASURED cross_attention B=1 heads=1 N=4800 d=64")
    assert told[1].endswith("kernels differs by 1.0e-01, more than 3e-05")


def test_what_is_written_is_what_the_choice_reads(tmp_path: Path) -> None:
    case = find("cross_attention", "N=4800")
    rows = [{**row(case, name, time), "copy": "1"} for name, time in (("reference", 2.0), ("kernels", 1.0))]
    harness.append_rows(tmp_path / "ops.csv", rows)
    gpu.write_measured(tmp_path)
    (found,) = _rows.read((tmp_path / _rows.FILE).read_text()).values()
    assert (found[0].operator, found[0].serves, found[0].faster) == ("cross_attention", True, 2.0)


def test_a_step_ends_as_it_ends(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert gpu.Step("good", ["platform"], 60).run(log, 60).startswith("ok, ")
    assert gpu.Step("bad", ["pytest", "no-such-file"], 60).run(log, 60).startswith("FAILED (status 4), ")
    start = time.perf_counter()
    assert gpu.Step("long", ["http.server", "0", "--bind", "127.0.0.1"], 60).run(log, 6) == "CUT after 6 s"
    assert time.perf_counter() - start < 30
    assert gpu.Step("late", ["platform"], 60).run(log, 2) == "skipped, no time is left"
    assert "==== bad: python -m pytest no-such-file" in log.read_text()


@pytest.mark.parametrize("on_gpu", [True, False])
def test_the_steps_fit_into_nine_minutes(on_gpu: bool, tmp_path: Path) -> None:
    steps = [*gpu.tests(on_gpu), *gpu.benchmarks(on_gpu, tmp_path)]
    assert len({step.title for step in steps}) == len(steps)
    files = [word for step in steps for word in step.command if word.startswith("tests/")]
    assert files
    assert all((harness.ROOT / file).exists() for file in files)
    assert gpu.MINUTES < 9 * 60


def test_without_a_gpu_it_is_a_dry_run_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpu, "tests", lambda on_gpu: [gpu.Step("tests", ["pytest", "no-such-file"], 60)])
    monkeypatch.setattr(gpu, "benchmarks", lambda on_gpu, output: [])
    monkeypatch.setenv("OUT", str(tmp_path))
    assert gpu.main([]) == 0
    told = capsys.readouterr().out
    assert told.startswith("There is no CUDA device: a dry run of all steps, on tiny sizes")
    assert "tests: FAILED (status 4)" in told
    assert (tmp_path / "dry" / "gpu.txt").read_text() == told
