from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from fusionblocks.metrics import Comparison, MetricTable

NAMES = ("a", "b")


def table(values: list[list[float]], metrics: tuple[str, ...] = ("EN", "MSE"), **changes: object) -> MetricTable:
    fields = {"names": NAMES, "convention": "cddfuse", **changes}
    return MetricTable(metrics=metrics, values=torch.tensor(values, dtype=torch.float64), **fields)


@pytest.fixture
def comparison() -> Comparison:
    return Comparison(
        {
            "first": table([[6.0, 100.0], [7.0, 300.0]]),
            "second_1": table([[5.0, 50.0], [6.0, 150.0]]),
        }
    )


def test_means_and_the_best_follow_each_metrics_direction(comparison: Comparison) -> None:
    assert comparison.means == {"first": {"EN": 6.5, "MSE": 200.0}, "second_1": {"EN": 5.5, "MSE": 100.0}}
    assert comparison.best("EN") == ("first",)
    assert comparison.best("MSE") == ("second_1",)
    assert comparison.values("second_1", "MSE") == [50.0, 150.0]


def test_equal_means_are_all_best() -> None:
    same = table([[6.0, 1.0], [7.0, 2.0]])
    assert Comparison({"x": same, "y": same}).best("EN") == ("x", "y")


def test_what_reads_the_same_as_the_best_is_marked_too() -> None:
    near = {"x": table([[6.0004, 1.0]] * 2), "y": table([[6.0, 2.0]] * 2), "z": table([[5.9, 2.0]] * 2)}
    rows = Comparison(near).rows("[{}]".format, digits=2)
    assert rows == [["[6.00]", "[1.00]"], ["[6.00]", "2.00"], ["5.90", "2.00"]]


def test_markdown(comparison: Comparison) -> None:
    assert comparison.to_markdown(digits=1).splitlines() == [
        "| method | EN ↑ | MSE ↓ |",
        "| --- | ---: | ---: |",
        "| first | **6.5** | 200.0 |",
        "| second_1 | 5.5 | **100.0** |",
    ]


def test_latex_escapes_names_and_sets_signs_as_mathematics() -> None:
    tables = {"a_b": table([[-0.25, 0.5]] * 2, ("CC", "MS_SSIM")), "c&d": table([[-0.5, 0.25]] * 2, ("CC", "MS_SSIM"))}
    assert Comparison(tables).to_latex(digits=2).splitlines() == [
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"Method & CC$\uparrow$ & MS\_SSIM$\uparrow$ \\",
        r"\midrule",
        r"a\_b & \textbf{$-$0.25} & \textbf{0.50} \\",
        r"c\&d & $-$0.50 & 0.25 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_csv_holds_every_value_exactly(comparison: Comparison, tmp_path: Path) -> None:
    third = table([[1 / 3, 0.1], [2 / 3, 0.2]])
    Comparison({"x": third, **comparison.tables}).to_csv(tmp_path / "all.csv")
    with (tmp_path / "all.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["method", "image", "EN", "MSE"]
    assert [row[:2] for row in rows[1:]] == [[m, n] for m in ("x", "first", "second_1") for n in NAMES]
    assert float(rows[1][2]) == 1 / 3
    assert [file.name for file in tmp_path.iterdir()] == ["all.csv"]


def test_a_file_that_cannot_be_written_leaves_nothing(comparison: Comparison, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder"):
        comparison.to_csv(tmp_path / "absent" / "all.csv")
    with pytest.raises(ValueError, match="it is a folder"):
        comparison.to_csv(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (table([[1.0]] * 2, ("EN",)), "same metrics, .* got EN, MSE for x and EN for y"),
        (table([[1.0, 1.0]] * 2, names=("a", "c")), "same pictures, .* got a, b for x and a, c for y"),
        (table([[1.0, 1.0]] * 2, convention="smfnet"), "same convention, .* cddfuse for x and smfnet for y"),
    ],
)
def test_tables_that_do_not_match_are_refused(other: MetricTable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Comparison({"x": table([[1.0, 1.0]] * 2), "y": other})


def test_no_table_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one method"):
        Comparison({})
