from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import fusionblocks as fb
from benchmarks import measuring, networks, ops, plot, report, run
from benchmarks.cases import Agreement, DisagreementError, relative_rms
from benchmarks.published_networks import FORMULATIONS, Published, publish

CPU = torch.device("cpu")
SETTINGS = measuring.Settings(threads=1, repeats=2)


class Here:
    """In the place of a process of its own: the test's."""

    def apply(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        return function(*arguments)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[measuring.Workers]:
    @contextmanager
    def workers(place: str, cap: float | None) -> Iterator[measuring.Workers]:
        yield measuring.Workers(Here(), Here())

    threads = torch.get_num_threads()
    monkeypatch.setattr(run, "workers", workers)
    monkeypatch.setitem(measuring.COPY_BYTES, "cpu", 2**20)
    yield measuring.Workers(Here(), Here())
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_command_appends_a_row_an_implementation_by_name(tmp_path: Path) -> None:
    """The real command, its processes included."""
    arguments = ["token_attention", "--precision", "float32", "--quick", "--repeats", "2", "--threads", "1"]
    assert run.main([*arguments, "--output", str(tmp_path)]) == 0
    rows = table(tmp_path / "ops.csv")
    assert [row["implementation"] for row in rows] == ["published", "reference", "sdpa", "fusionblocks"]
    assert not (tmp_path / "networks.csv").exists()
    for row in rows:
        assert (row["name"], row["precision"], row["passes"]) == ("token_attention", "float32", "forward")
        assert row["shapes"] == "B=1 heads=2 N=257 d=64 T=16"
        assert 0 < float(row["p20_ms"]) <= float(row["p50_ms"]) <= float(row["p80_ms"])
        assert float(row["difference"]) <= ops.LIMITS["float32"]
        assert float(row["peak_mib"]) >= 0
        assert float(row["floor_ms"]) > 0
        assert (row["place"], row["threads"], row["repeats"]) == ("cpu", "1", "2")
        assert row["device"]
        assert row["commit"]
        assert "torch" in row["versions"]
    assert {row["implementation"]: row["backend"] for row in rows}["fusionblocks"] == "torch"
    assert float(rows[0]["times_faster"]) == 1


def test_quick_writes_nothing_unless_told_where(
    in_this_process: measuring.Workers, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(run.harness, "RESULTS", tmp_path / "results")
    assert run.main(["cross_attention", "--quick", "--repeats", "1", "--precision", "float32"]) == 0
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("wrong", [1 + 1e-4, float("nan")])
def test_a_wrong_implementation_is_refused_with_its_case(
    wrong: float, in_this_process: measuring.Workers, monkeypatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cross = ops.OPERATORS["cross_attention"]
    right = cross.variants[ops.OURS]
    monkeypatch.setitem(cross.variants, ops.OURS, lambda *inputs: [wrong * x for x in right(*inputs)])
    arguments = ["cross_attention", "token_attention", "--quick", "--repeats", "1", "--precision", "float32"]
    assert run.main([*arguments, "--output", str(tmp_path)]) == 1
    assert "fusionblocks differs by" in capsys.readouterr().err
    assert {row["name"] for row in table(tmp_path / "ops.csv")} == {"token_attention"}


def test_wrong_gradients_are_refused(monkeypatch) -> None:
    class Halved(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            return x.clone()

        @staticmethod
        def backward(context, gradient):
            return gradient / 2

    channel = ops.OPERATORS["channel_attention"]
    right = channel.variants[ops.OURS]
    monkeypatch.setitem(channel.variants, ops.OURS, lambda q, k, v, t: right(Halved.apply(q), k, v, t))
    sizes = {"B": 1, "heads": 2, "C": 4, "N": 33}
    measuring.measure_times(ops.OpCase("channel_attention", sizes), SETTINGS)
    with pytest.raises(DisagreementError, match="fusionblocks differs by"):
        measuring.measure_times(ops.OpCase("channel_attention", sizes, backward=True), SETTINGS)


@pytest.mark.parametrize(
    "arguments", [["nothing"], ["--device", "cuda", "dual"], ["token_attention", "--shapes", "T=99"]]
)
def test_bad_arguments_end_with_status_two(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as error:
        run.main(arguments)
    assert error.value.code == 2


@pytest.mark.parametrize(
    "case", [case for case in ops.CASES if (case.precision, case.devices) == ("float32", ("cpu",))], ids=run.titled
)
def test_all_variants_of_all_operators_agree(case: ops.OpCase) -> None:
    case = case.small()
    truth = case.truth(CPU)
    for name, call in case.prepare(case.implementations("cpu"), CPU).items():
        agreement = case.agreement(name, call(), truth)
        assert agreement.holds, f"{name} {agreement}"


def test_floors_count_what_must_move() -> None:
    sizes = {"B": 1, "heads": 8, "C": 8, "N": 100}
    tensor = 8 * 8 * 100
    assert ops.OpCase("channel_attention", sizes).floor_bytes == 4 * 4 * tensor
    assert ops.OpCase("channel_attention", sizes, "bfloat16", backward=True).floor_bytes == 2 * 11 * tensor
    token = ops.OpCase("folded_token_attention", {"B": 1, "C": 8, "N": 100, "T": 5})
    assert token.floor_bytes == 4 * 2 * 800


NARROW: dict[str, dict[str, Any]] = {
    "psfusion": {"backbone": "resnet18", "backbone_channels": (8, 8, 8, 8), "semantic_channels": 8},
    "sgafusion": {"channels": 4},
    "smfnet": {"channels": 16, "num_heads": 4, "base_layers": 1, "base_depth": 1},
}


@pytest.mark.parametrize("name", NARROW)
def test_the_published_formulation_equals_the_blocks(name: str) -> None:
    torch.manual_seed(0)
    network = networks.enliven(fb.create_model(name, **NARROW[name])).eval()
    published = publish(network)
    inputs = networks.NetworkCase(name, 32, 64).inputs(CPU)
    with torch.no_grad():
        expected, got = networks.pictures(network(**inputs)), networks.pictures(published(**inputs))
    assert len(expected) == {"psfusion": 6, "sgafusion": 2, "smfnet": 1}[name]
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    exchanged = {type(module) for module in published.modules() if isinstance(module, Published)}
    assert len(exchanged) == {"psfusion": 1, "sgafusion": 2, "smfnet": 3}[name]
    assert not any(isinstance(module, Published) for module in network.modules())


@pytest.mark.parametrize("name", NARROW)
def test_the_check_sees_every_block_that_is_exchanged(name: str) -> None:
    """The weights leave none of them without effect on what is compared."""
    torch.manual_seed(0)
    network = networks.enliven(fb.create_model(name, **NARROW[name])).eval()
    inputs = networks.NetworkCase(name, 32, 64).inputs(CPU)
    kinds = {type(block) for block in network.modules() if isinstance(block, tuple(FORMULATIONS))}
    with torch.no_grad():
        case, expected = networks.NetworkCase(name, 32, 64), networks.pictures(network(**inputs))
        for kind in kinds:
            changed = publish(network)
            for module in changed.modules():
                if isinstance(module, Published) and type(module.block) is kind:
                    module.register_forward_hook(lambda module, arguments, output: 1.1 * output)
            got = networks.pictures(changed(**inputs))
            assert not case.agreement("optimized", got, expected).holds, kind.__name__


def test_weights_and_inputs_of_networks_are_reproducible() -> None:
    case = networks.NetworkCase("psfusion", 32, 64)
    first, second = case.network(CPU).state_dict(), case.network(CPU).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(a, b) for a, b in zip(case.inputs(CPU).values(), case.inputs(CPU).values()))


def test_agreement_by_difference_and_by_psnr() -> None:
    assert Agreement(1e-5, 1e-4).holds
    assert not Agreement(2e-4, 1e-4).holds
    assert not Agreement(float("nan"), 1e-4).holds
    assert Agreement(1.0, 1e-4, psnr=45.1, least_psnr=45.0).holds
    assert not Agreement(1.0, 1e-4, psnr=44.9, least_psnr=45.0).holds
    assert not Agreement(1.0, 1e-4, psnr=float("nan"), least_psnr=45.0).holds
    case = networks.NetworkCase("psfusion", 32, 32, "bfloat16")
    truth = torch.rand(1, 1, 32, 32)
    assert case.agreement("optimized", [truth + 0.01], [truth]).psnr == pytest.approx(40, abs=1e-3)
    assert case.agreement(networks.FUSED_ALONE, [truth], [truth, truth]).difference == 0
    assert not networks.NetworkCase("psfusion", 32, 32).agreement("optimized", [truth], [truth, truth]).holds


def test_relative_rms_takes_the_worst_tensor_and_counts_nan_as_wrong() -> None:
    ones = torch.ones(4)
    assert relative_rms([ones, ones * 1.1], [ones, ones]) == pytest.approx(0.1, rel=1e-5)
    assert not relative_rms([ones, ones * float("nan")], [ones, ones]) <= 1
    assert not relative_rms([ones], [ones, ones]) <= 1


def test_the_published_formulation_is_not_held_to_a_psnr() -> None:
    """It is what others are compared with, and may be worse in 16 bits itself."""
    truth = torch.rand(1, 1, 32, 32)
    for precision in networks.HALVES:
        case = networks.NetworkCase("psfusion", 32, 32, precision)
        assert case.agreement("published", [truth + 0.1], [truth]).holds
        assert not case.agreement("published", [truth * float("nan")], [truth]).holds
        assert not case.agreement("optimized", [truth + 0.1], [truth]).holds


def test_a_case_that_fails_or_hangs_has_no_row_and_ends_nothing(tmp_path: Path, capsys, monkeypatch) -> None:
    measured: list[str] = []

    def measure(case: ops.OpCase, *_: Any) -> list[dict[str, str]]:
        measured.append(case.precision)
        raise TimeoutError("it took more than 3 s") if len(measured) == 1 else RuntimeError("illegal memory access")

    monkeypatch.setattr(run, "measure", measure)
    assert run.main(["cross_attention", "--quick", "--output", str(tmp_path)]) == 1
    assert measured == ["float32", "bfloat16"]
    told = capsys.readouterr().err.splitlines()
    assert told[0].endswith("forward: it took more than 3 s; nothing is reported")
    assert "RuntimeError('illegal memory access')" in told[1]
    assert [file.name for file in tmp_path.iterdir()] == ["refused.csv"]
    kept = table(tmp_path / "refused.csv")
    assert [row["reason"] for row in kept] == ["it took more than 3 s", "RuntimeError('illegal memory access')"]
    assert {(row["suite"], row["name"], row["place"]) for row in kept} == {("ops", "cross_attention", "cpu")}


def test_a_process_is_replaced_after_a_fault_and_a_hang() -> None:
    process = measuring.OwnProcess({"FUSIONBLOCKS_TEST": "1"}, cap=20)
    try:
        first = process.apply(os.getpid, ())
        assert process.apply(os.getpid, ()) == first
        assert process.apply(os.getenv, ("FUSIONBLOCKS_TEST",)) == "1"
        with pytest.raises(ZeroDivisionError):
            process.apply(divmod, (1, 0))
        second = process.apply(os.getpid, ())
        assert second != first
        process._cap = 0.3
        with pytest.raises(TimeoutError, match="it took more than 0 s"):
            process.apply(time.sleep, (60,))
        process._cap = 20
        assert process.apply(os.getpid, ()) != second
    finally:
        process.end()


def test_peak_memory_is_that_of_the_large_matrix_where_there_is_one() -> None:
    case = ops.OpCase("cross_attention", {"B": 1, "heads": 1, "N": 2048, "d": 8})
    with measuring.workers() as processes:
        peaks = processes.memory.apply(measuring.measure_memory, (case, SETTINGS))
    matrix = 4 * 2048**2
    assert peaks["published"] > 1.9 * matrix
    assert peaks["fusionblocks"] < 0.5 * matrix


def test_backends_are_seen_as_they_are_chosen() -> None:
    x = torch.rand(1, 1, 5, 4)
    with measuring.backends_seen() as seen:
        fb.ops.cross_attention(x, x, x)
    assert seen == {"torch"}


def test_tables_and_plots_come_from_the_newest_rows(in_this_process: measuring.Workers, tmp_path: Path) -> None:
    arguments = ["cross_attention", "--quick", "--repeats", "1", "--output", str(tmp_path)]
    assert run.main(arguments) == 0
    assert run.main(arguments) == 0
    rows = report.read("ops", "cpu", tmp_path)
    assert len(table(tmp_path / "ops.csv")) == 2 * len(rows)
    assert rows[0] == table(tmp_path / "ops.csv")[len(rows)]
    text = report.page("ops", "cpu", tmp_path)
    assert text.count("`cross_attention`") == len(report.cases(rows)) == 2
    assert rows[0]["device"] in text
    assert report.page("ops", "cuda", tmp_path) == "There is no GPU row yet.\n"
    pytest.importorskip("matplotlib")
    assert plot.main(["--results", str(tmp_path), "--output", str(tmp_path / "plots")]) == 0
    assert [file.name for file in (tmp_path / "plots").iterdir()] == ["ops_cpu.png"]


def test_the_reference_is_not_drawn_beside_itself() -> None:
    names = ("published", "reference", "reference, compiled", "fusionblocks", "published, compiled")
    for backend, left in {"torch": 2, "triton": 4}.items():
        drawn = plot.drawn({name: {"backend": backend} for name in names})
        assert len(drawn) == left
        assert {"fusionblocks", "published, compiled"} <= set(drawn)


def test_the_tracked_tables_can_be_read() -> None:
    for suite in report.SUITES:
        for row in report.read(suite, "cpu"):
            assert float(row["p50_ms"]) > 0
            assert row["commit"] != "unknown"
