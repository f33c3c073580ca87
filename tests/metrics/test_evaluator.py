"""FusionEvaluator and the table it ends in."""

from __future__ import annotations

import copy
import csv
import math
import pickle
import sys
from pathlib import Path

import pytest
import torch

from fusionblocks.metrics import METRICS, FusionEvaluator, MetricTable, evaluate
from tests.helpers.gray import gray, triple

NAMES = ("EN", "MSE", "SSIM")


def filled(*seeds: int, named: bool = True, **options: str) -> FusionEvaluator:
    """Return an evaluator that has seen a batch of two pictures per seed."""
    evaluator = FusionEvaluator(metrics=NAMES, **options)
    for seed in seeds:
        names = [f"{seed}a.png", f"{seed}b.png"] if named else None
        evaluator.update(*triple(2, 16, 20, seed=seed), names)
    return evaluator


@pytest.mark.parametrize("convention", ["cddfuse", "smfnet"])
def test_the_table_holds_what_evaluate_gives(convention: str) -> None:
    table = filled(0, 1, convention=convention).compute()
    expected = [evaluate(*triple(2, 16, 20, seed=seed), NAMES, convention) for seed in (0, 1)]
    values = {name: torch.cat([scores[name] for scores in expected]) for name in NAMES}

    assert table.names == ("0a.png", "0b.png", "1a.png", "1b.png")
    assert table.metrics == NAMES
    assert table.convention == convention
    assert len(table) == 4
    assert torch.equal(table.values, torch.stack(list(values.values()), 1))
    for name in NAMES:
        assert table.mean[name] == pytest.approx(values[name].mean().item(), rel=1e-14)
        assert table.std[name] == pytest.approx(values[name].std(correction=0).item(), rel=1e-14)
        assert table.per_image["1a.png"][name] == values[name][2].item()


def test_all_metrics_by_default() -> None:
    evaluator = FusionEvaluator()
    evaluator.update(*triple(1, 176, 176))
    assert evaluator.compute().metrics == tuple(METRICS)


def test_the_size_may_change_between_batches() -> None:
    evaluator = FusionEvaluator(metrics=NAMES)
    evaluator.update(*triple(2, 16, 20))
    evaluator.update(*triple(1, 33, 18))
    assert len(evaluator) == 3
    assert evaluator.compute().names == ("0", "1", "2")


def test_the_spread_of_one_picture_is_zero() -> None:
    evaluator = FusionEvaluator(metrics=NAMES)
    evaluator.update(*triple(1, 16, 20), "only.png")  # type: ignore[arg-type]
    table = evaluator.compute()
    assert table.names == ("only.png",)
    assert set(table.std.values()) == {0.0}


def test_reset_forgets() -> None:
    evaluator = filled(0)
    evaluator.reset()
    assert len(evaluator) == 0
    with pytest.raises(ValueError, match="no picture was evaluated yet"):
        evaluator.compute()
    evaluator.update(*triple(2, 16, 20), ["0a.png", "0b.png"])
    assert len(evaluator) == 2


def test_workers_merge_to_the_whole() -> None:
    whole = filled(0, 1, 2).compute()
    first, *others = (pickle.loads(pickle.dumps(filled(seed))) for seed in range(3))
    first.merge(*others)
    merged = first.compute()
    assert merged.names == whole.names
    assert torch.equal(merged.values, whole.values)
    assert len(others[0]) == 2


def test_unnamed_pictures_of_workers_are_numbered_together() -> None:
    first, second = filled(0, named=False), filled(1, named=False)
    first.merge(second)
    assert first.compute().names == ("0", "1", "2", "3")


def test_a_refused_merge_changes_nothing() -> None:
    evaluator = filled(0)
    others = [filled(1), filled(0)]
    with pytest.raises(ValueError, match="names must be given once each, '0a.png' was evaluated already"):
        evaluator.merge(*others)
    for other in (FusionEvaluator(metrics=("EN",)), FusionEvaluator(metrics=NAMES, convention="vifb")):
        with pytest.raises(ValueError, match="must have the same metrics and convention, got EN, MSE, SSIM .cddfuse."):
            evaluator.merge(other)
    assert len(evaluator) == 2


def test_a_refused_batch_changes_nothing() -> None:
    evaluator = filled(0)
    batch = triple(2, 16, 20, seed=1)
    for names, message in (
        (["0b.png", "x"], "'0b.png' was evaluated already"),
        (["x", "x"], "'x' was evaluated already"),
        (["x"], "names must hold one name per picture, 2, got 1"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluator.update(*batch, names)
    broken = batch[0] / 255
    broken[0, 0, 0, 0] = math.nan
    with pytest.raises(ValueError, match="fused has 1 NaN value in picture 0"):
        evaluator.update(broken, *batch[1:])
    assert len(evaluator) == 2
    assert len(evaluator.compute()) == 2


def test_no_graph_is_kept() -> None:
    evaluator = FusionEvaluator(metrics=NAMES)
    evaluator.update(*((picture / 255).requires_grad_() for picture in triple(1, 16, 20)))
    assert not evaluator.compute().values.requires_grad


def test_values_that_are_not_finite_are_told() -> None:
    evaluator = FusionEvaluator(metrics=("EN", "PSNR"))
    picture = gray(2, 16, 20)
    evaluator.update(picture, picture, picture, ["a.png", "b.png"])
    evaluator.update(*triple(1, 16, 20), ["c.png"])
    message = r"^PSNR is not finite for 2 of 3 pictures \(a.png, b.png\), nor is its mean$"
    with pytest.warns(RuntimeWarning, match=message):
        table = evaluator.compute()
    assert table.mean["PSNR"] == math.inf
    assert math.isfinite(table.mean["EN"])


def test_unknown_names_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="unknown metric 'SSI', did you mean 'SSIM'"):
        FusionEvaluator(metrics=("SSI",))
    with pytest.raises(ValueError, match="unknown convention 'vifbb', did you mean 'vifb'"):
        FusionEvaluator(convention="vifbb")


@pytest.fixture
def table() -> MetricTable:
    values = torch.tensor([[6.0, -0.5], [7.0, 0.25]], dtype=torch.float64)
    return MetricTable(("a_1|x.png", "b.png"), ("EN", "MS_SSIM"), values, convention="cddfuse")


def test_pandas(table: MetricTable) -> None:
    pytest.importorskip("pandas")
    frame = table.to_pandas()
    assert list(frame.columns) == ["EN", "MS_SSIM"]
    assert list(frame.index) == ["a_1|x.png", "b.png"]
    assert frame.index.name == "image"
    assert frame.loc["b.png", "MS_SSIM"] == 0.25
    frame.iloc[0, 0] = 0
    assert table.values[0, 0] == 6


def test_a_missing_pandas_is_named(table: MetricTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match=r'needs pandas: pip install "fusionblocks\[metrics\]"'):
        table.to_pandas()


def test_csv_holds_all_digits(tmp_path: Path) -> None:
    table = filled(0, 1).compute()
    path = tmp_path / "scores.csv"
    path.write_text("old")
    table.to_csv(path)
    with path.open(newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    assert header == ["image", *NAMES]
    assert [line[0] for line in lines] == list(table.names)
    assert [[float(cell) for cell in line[1:]] for line in lines] == table.values.tolist()
    assert [entry.name for entry in tmp_path.iterdir()] == ["scores.csv"]


def test_csv_with_a_summary(table: MetricTable, tmp_path: Path) -> None:
    table.to_csv(tmp_path / "scores.csv", summary=True)
    expected = "image,EN,MS_SSIM\na_1|x.png,6.0,-0.5\nb.png,7.0,0.25\nmean,6.5,-0.125\nstd,0.5,0.375\n"
    assert (tmp_path / "scores.csv").read_bytes() == expected.encode()


def test_csv_is_whole_or_absent(table: MetricTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space left"):
        table.to_csv(path)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["scores.csv"]
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        table.to_csv(tmp_path / "absent" / "scores.csv")


def test_markdown(table: MetricTable) -> None:
    expected = [
        "| | EN ↑ | MS_SSIM ↑ |",
        "| :-- | --: | --: |",
        "| mean | 6.50 | -0.12 |",
        "| std | 0.50 | 0.38 |",
    ]
    assert table.to_markdown(digits=2).splitlines() == expected
    rows = table.to_markdown(digits=2, images=True).splitlines()
    assert rows[2:4] == [r"| a_1\|x.png | 6.00 | -0.50 |", "| b.png | 7.00 | 0.25 |"]
    assert rows[4:] == expected[2:]
    assert str(table) == table.to_markdown()


def test_markdown_points_down_where_less_is_better() -> None:
    assert "MSE ↓" in str(filled(0).compute())


def test_latex(table: MetricTable) -> None:
    assert table.to_latex(digits=2).splitlines() == [
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r" & EN $\uparrow$ & MS\_SSIM $\uparrow$ \\",
        r"\midrule",
        r"mean & 6.50 & $-0.12$ \\",
        r"std & 0.50 & 0.38 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    rows = table.to_latex(digits=2, images=True).splitlines()
    assert rows[4:7] == [r"a\_1|x.png & 6.00 & $-0.50$ \\", r"b.png & 7.00 & 0.25 \\", r"\midrule"]


def test_a_table_survives_pickling(table: MetricTable) -> None:
    again = pickle.loads(pickle.dumps(table))
    assert str(again) == str(table)
    assert torch.equal(copy.deepcopy(table).values, table.values)
