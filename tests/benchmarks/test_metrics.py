from __future__ import annotations

import csv
import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("scipy")

from benchmarks import harness, metrics
from benchmarks.published_metrics import METRICS

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("index", range(3))
def test_the_yardstick_is_the_published_formulation(index: int) -> None:
    expected = json.loads((GOLDEN / "metrics.json").read_text())["values"][str(index)]
    pictures = np.load(GOLDEN / "metrics_images.npz")
    fused, infrared, visible = (pictures[f"{kind}{index}"].astype(np.float64) for kind in ("fused", "ir", "vi"))
    for name, metric in METRICS.items():
        assert metric(fused, infrared, visible) == pytest.approx(expected[name], rel=1e-9), name


def test_both_agree_on_scenes() -> None:
    triple = metrics.pictures(96, 112, 3)
    assert [picture.shape for picture in triple] == [(3, 1, 96, 112)] * 3
    assert metrics.check_agreement(metrics.published(triple), metrics.ours(triple)) <= metrics.AGREEMENT


@pytest.mark.parametrize("wrong", [2.0 * (1 + 2e-6), float("nan")])
def test_disagreement_is_an_error_that_names_the_metric(wrong: float) -> None:
    expected = {"EN": [1.0, 2.0], "SD": [3.0, 4.0]}
    right = {name: torch.tensor(values, dtype=torch.float64) for name, values in expected.items()}
    assert metrics.check_agreement(expected, right) == 0
    with pytest.raises(metrics.DisagreementError, match="EN differs"):
        metrics.check_agreement(expected, {**right, "EN": torch.tensor([1.0, wrong], dtype=torch.float64)})


def test_a_large_batch_mirrors_the_scenes() -> None:
    fused, _, _ = metrics.pictures(48, 64, 6)
    assert torch.equal(fused[4], fused[0].flip(1))
    assert not torch.equal(fused[1], fused[0])


def test_the_command_appends_two_rows_a_case(tmp_path: Path) -> None:
    table = tmp_path / "metrics.csv"
    arguments = ["--sizes", "112x96", "--batches", "2", "--repeats", "2", "--threads", "1", "--output", str(table)]
    assert metrics.main(arguments) == 0
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["implementation"] for row in rows] == ["published", "fusionblocks"]
    for row in rows:
        assert (row["width"], row["height"], row["batch"], row["threads"]) == ("112", "96", "2", "1")
        assert 0 < float(row["p20_s"]) <= float(row["p50_s"]) <= float(row["p80_s"])
        assert float(row["largest_difference"]) <= 1e-6
        assert int(row["peak_mib"]) >= 0
        assert "torch" in row["versions"]
        assert row["device"]


def test_percentiles_and_the_median_of_paired_ratios() -> None:
    assert harness.percentiles([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == pytest.approx({"p20": 2.0, "p50": 3.5, "p80": 5.0})
    assert harness.median_ratio([(10.0, 1.0), (30.0, 2.0), (40.0, 2.0)]) == 15.0


def peak_of_ones(mebibytes: int) -> int:
    return harness.peak_bytes(lambda: np.ones(mebibytes * harness.MEBIBYTE, np.uint8).sum(), torch.device("cpu"))


def test_peak_memory_sees_what_a_call_allocates() -> None:
    # a process of its own has no freed memory to use again unseen
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        peak = pool.apply(peak_of_ones, (40,))
    assert 30 * harness.MEBIBYTE < peak < 80 * harness.MEBIBYTE


def test_rows_of_other_columns_are_not_mixed_in(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    harness.append_rows(table, [{"a": "1", "b": "2"}])
    harness.append_rows(table, [{"a": "3", "b": "4, 5"}])
    assert table.read_text() == 'a,b\n1,2\n3,"4, 5"\n'
    with pytest.raises(ValueError, match="columns"):
        harness.append_rows(table, [{"a": "1", "c": "2"}])
    assert table.read_text() == 'a,b\n1,2\n3,"4, 5"\n'
