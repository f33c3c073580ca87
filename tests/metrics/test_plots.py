from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fusionblocks.metrics import Comparison, MetricTable, plot_curves, plot_overview, plot_radar
from fusionblocks.metrics.plots import share_of_best

pytest.importorskip("matplotlib")


def compare(values: dict[str, list[list[float]]], *metrics: str) -> Comparison:
    def table(rows: list[list[float]]) -> MetricTable:
        names = tuple(str(i) for i in range(len(rows)))
        return MetricTable(names, metrics, torch.tensor(rows, dtype=torch.float64), "cddfuse")

    return Comparison({method: table(rows) for method, rows in values.items()})


def random_comparison(methods: int, *metrics: str, pictures: int = 5) -> Comparison:
    values = np.random.default_rng(0).random((methods, pictures, len(metrics)))
    return compare({f"method {i}": block.tolist() for i, block in enumerate(values)}, *metrics)


def test_a_curve_says_which_share_of_the_pictures_scores_no_more() -> None:
    figure = plot_curves(compare({"x": [[3.0], [1.0], [4.0], [2.0]]}, "EN"))
    (line,) = figure.axes[0].lines
    shares, values = line.get_data()
    assert list(shares) == [0.25, 0.5, 0.75, 1.0]
    assert list(values) == [1.0, 2.0, 3.0, 4.0]
    assert figure.axes[0].get_title(loc="left") == "EN ↑"
    assert figure.axes[0].get_legend().get_texts()[0].get_text() == "2.5"


def test_one_panel_a_metric_and_no_empty_ones() -> None:
    metrics = ("EN", "SD", "SF", "AG", "MI")
    figure = plot_curves(random_comparison(2, *metrics))
    assert [axes.get_title(loc="left").split()[0] for axes in figure.axes] == list(metrics)
    assert all(len(axes.lines) == 2 for axes in figure.axes)


def test_methods_differ_in_colour_or_line() -> None:
    figure = plot_curves(random_comparison(16, "EN"))
    assert len({(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}) == 16


def test_share_of_best_is_one_for_the_best_in_either_direction() -> None:
    comparison = compare({"x": [[4.0, 10.0, -0.5]], "y": [[3.0, 40.0, 0.25]]}, "EN", "MSE", "SCD")
    shares = {m: [share_of_best(comparison, m, metric) for metric in comparison.metrics] for m in "xy"}
    assert shares == {"x": [1.0, 1.0, 0.0], "y": [0.75, 0.25, 1.0]}


def test_the_radar_draws_shares_of_the_best() -> None:
    comparison = compare({"x": [[4.0, 10.0, 1.0]], "y": [[3.0, 40.0, 0.9]]}, "EN", "MSE", "SCD")
    (axes,) = plot_radar(comparison).axes
    assert [list(line.get_ydata()) for line in axes.lines] == [[1, 1, 1, 1], [0.75, 0.25, 0.9, 0.75]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["EN\n4", "MSE\n10", "SCD\n1"]
    assert axes.get_ylim()[0] <= 0.25


def test_a_radar_of_one_method_or_two_metrics_is_refused_and_left_out_of_the_overview() -> None:
    one, two = random_comparison(1, "EN", "SD", "SF"), random_comparison(3, "EN", "SD")
    for comparison in (one, two):
        with pytest.raises(ValueError, match="at least two methods and three metrics"):
            plot_radar(comparison)
        assert len(plot_overview(comparison).axes) == len(comparison.metrics)
    assert len(plot_overview(random_comparison(2, "EN", "SD", "SF")).axes) == 4


@pytest.mark.parametrize("suffix", [".png", ".PDF", ".svg"])
def test_plot_writes_a_whole_file(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"curves{suffix}"
    random_comparison(2, "EN", "SD", "SF", pictures=50).plot(file)
    start = {".png": b"\x89PNG", ".PDF": b"%PDF", ".svg": b"<?xml"}[suffix]
    assert file.read_bytes().startswith(start)
    assert [other.name for other in tmp_path.iterdir()] == [file.name]


def test_plots_have_ink_of_every_method_and_infinite_values_do_no_harm(tmp_path: Path) -> None:
    comparison = compare(
        {"x": [[math.inf, 3.0, 1.0], [20.0, 2.0, 0.5]], "y": [[10.0, 1, 2], [5, 2, 1]]}, "PSNR", "EN", "CC"
    )
    comparison.plot(tmp_path / "curves.png")
    pixels = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB")).reshape(-1, 3)
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        assert (pixels == colour).all(1).sum() > 200


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.pdf, \.png, \.svg"):
        random_comparison(1, "EN").plot(tmp_path / "curves.bmp")
