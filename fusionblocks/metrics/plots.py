"""Pictures of a comparison: cumulative curves of each metric, and a radar chart of all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fusionblocks.metrics.comparison import Comparison

# colours that colour-blind readers tell apart (Okabe and Ito); from the eighth method on the lines change as well
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#333333")
_LINES = ("-", "--", ":", "-.")
_GRAY, _PALE = "#666666", "#dddddd"
_FEW_PICTURES = 40
_FEW_METHODS = 8


def plot_curves(comparison: Comparison, *, columns: int | None = None) -> Figure:
    """Draw one panel a metric: the pictures' values in rising order, over the share of pictures that lie no higher.

    A point ``(x, y)`` says that ``100 x`` percent of the pictures score ``y`` or less. The number beside each line in a
    panel is the method's mean.

    Args:
        comparison: The methods' scores.
        columns: Panels a row; by default up to four, or six for more than twelve metrics.

    Returns:
        The figure; ``savefig`` writes it.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import Comparison, MetricTable, plot_curves
        >>> metrics = ("EN", "VIF")
        >>> tables = {name: MetricTable(("1", "2"), metrics, torch.rand(2, 2), "cddfuse") for name in "ab"}
        >>> len(plot_curves(Comparison(tables)).axes)
        2
    """
    columns = columns or _columns(len(comparison.metrics))
    rows = math.ceil(len(comparison.metrics) / columns)
    figure = _figure(2.6 * columns + 0.4, 2.2 * rows + 0.7)
    _draw_curves(figure, comparison, columns)
    _draw_legend(figure, comparison)
    return figure


def plot_radar(comparison: Comparison) -> Figure:
    """Draw one spoke a metric and one polygon a method: how close each mean comes to the best one.

    The rim is the best mean of each metric, written beside its name. A mean's radius is its share of that best value,
    or the best value's share of it where less is better; it is 0 where the two have different signs. The centre is not
    always 0: the circles are labelled.

    Args:
        comparison: The scores of two methods or more, on three metrics or more.

    Returns:
        The figure; ``savefig`` writes it.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: There are fewer than two methods or three metrics.

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import Comparison, MetricTable, plot_radar
        >>> metrics = ("EN", "SD", "VIF")
        >>> tables = {name: MetricTable(("1", "2"), metrics, torch.rand(2, 3), "cddfuse") for name in "ab"}
        >>> len(plot_radar(Comparison(tables)).axes)
        1
    """
    if not has_radar(comparison):
        raise ValueError(
            "comparison must have at least two methods and three metrics for a radar chart, got "
            f"{len(comparison.methods)} and {len(comparison.metrics)}"
        )
    figure = _figure(4.6, 4.9)
    _draw_radar(figure, comparison)
    _draw_legend(figure, comparison)
    return figure


def plot_overview(comparison: Comparison) -> Figure:
    """Draw the curves of every metric and, where there is something to compare, the radar chart beside them.

    Args:
        comparison: The methods' scores.

    Returns:
        The figure; ``savefig`` writes it.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import Comparison, MetricTable, plot_overview
        >>> metrics = ("EN", "SD", "VIF")
        >>> tables = {name: MetricTable(("1", "2"), metrics, torch.rand(2, 3), "cddfuse") for name in "ab"}
        >>> len(plot_overview(Comparison(tables)).axes)
        4
    """
    if not has_radar(comparison):
        return plot_curves(comparison)
    columns = _columns(len(comparison.metrics))
    height = max(2.2 * math.ceil(len(comparison.metrics) / columns), 4.2)
    width = 2.6 * columns
    figure = _figure(width + 4.4, height + 0.7)
    parts: Any = figure.subfigures(1, 2, width_ratios=[width, 4.2], wspace=0.02)
    left, right = parts
    _draw_curves(left, comparison, columns)
    _draw_radar(right, comparison)
    _draw_legend(figure, comparison)
    return figure


def has_radar(comparison: Comparison) -> bool:
    """Return whether a radar chart says anything: two methods or more, three metrics or more."""
    return len(comparison.methods) >= 2 and len(comparison.metrics) >= 3


def _columns(panels: int) -> int:
    """Return how many panels stand in a row: rows as even as they can be, of at most four, or six of many panels."""
    most = 4 if panels <= 12 else 6
    return math.ceil(panels / math.ceil(panels / most))


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("plots need matplotlib: pip install 'fusionblocks[plot]'", name=error.name) from error
    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def _styles(methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    return {
        method: {"color": _COLOURS[i % len(_COLOURS)], "linestyle": _LINES[i // len(_COLOURS) % len(_LINES)]}
        for i, method in enumerate(methods)
    }


def _draw_curves(figure: Any, comparison: Comparison, columns: int) -> None:
    rows = math.ceil(len(comparison.metrics) / columns)
    styles = _styles(comparison.methods)
    panels: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel, metric in zip(panels, comparison.metrics):
        for method in comparison.methods:
            values = sorted(comparison.values(method, metric))
            shares = [(i + 1) / len(values) for i in range(len(values))]
            few: dict[str, Any] = {"marker": "o", "markersize": 2.5} if len(values) <= _FEW_PICTURES else {}
            mean = _short(comparison.means[method][metric])
            panel.plot(shares, values, linewidth=1.3, label=mean, **few, **styles[method])
        arrow = {1: " ↑", -1: " ↓"}.get(comparison.direction(metric), "")
        panel.set_title(f"{metric}{arrow}", fontsize=9, fontweight="bold", loc="left", pad=4)
        panel.set_xlim(0, 1.02)
        panel.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        panel.tick_params(labelsize=7, colors=_GRAY, length=2)
        panel.grid(color=_PALE, linewidth=0.5)
        panel.spines[["top", "right"]].set_visible(False)
        panel.spines[["bottom", "left"]].set_color(_GRAY)
        if len(comparison.methods) <= _FEW_METHODS:
            panel.legend(fontsize=6.5, frameon=False, handlelength=1.2, loc="best", labelspacing=0.2)
    for panel in panels[len(comparison.metrics) :]:
        panel.remove()
    figure.supxlabel("share of the pictures that score this or less", fontsize=8, color=_GRAY)


def _draw_radar(figure: Any, comparison: Comparison) -> None:
    metrics, styles = comparison.metrics, _styles(comparison.methods)
    shares = {method: [share_of_best(comparison, method, metric) for metric in metrics] for method in styles}
    # the centre: a whole tenth below every mean, and circles at whole tenths from it
    tenths = max(0, math.floor(min(map(min, shares.values())) * 10 - 0.5))
    circles = [i / 10 for i in range(10, tenths, -1 if tenths >= 5 else -2)]
    angles = [2 * math.pi * i / len(metrics) for i in range(len(metrics))]
    chart = figure.add_subplot(projection="polar")
    chart.set_theta_offset(math.pi / 2)
    chart.set_theta_direction(-1)
    for method, row in shares.items():
        closed = [*row, row[0]]
        chart.plot([*angles, angles[0]], closed, linewidth=1.4, marker="o", markersize=2.5, **styles[method])
        chart.fill([*angles, angles[0]], closed, color=styles[method]["color"], alpha=0.06)
    best = {metric: comparison.means[comparison.best(metric)[0]][metric] for metric in metrics}
    chart.set_xticks(angles, [f"{metric}\n{_short(value)}" for metric, value in best.items()], fontsize=7)
    chart.tick_params(axis="x", pad=5)
    chart.set_ylim(tenths / 10, 1.02)
    chart.set_yticks(circles, [f"{circle:g}" for circle in circles], fontsize=6, color=_GRAY)
    chart.set_rlabel_position(180 / len(metrics))
    chart.grid(color=_PALE, linewidth=0.6)
    chart.spines["polar"].set_color(_PALE)
    figure.supxlabel("mean as a share of the best one, which is written at the rim", fontsize=8, color=_GRAY)


def share_of_best(comparison: Comparison, method: str, metric: str) -> float:
    """Return how close a method's mean comes to the best, 1 for the best itself, 0 where the signs differ."""
    best = comparison.means[comparison.best(metric)[0]][metric]
    mean = comparison.means[method][metric]
    if mean == best:
        return 1.0
    if not math.isfinite(mean) or not math.isfinite(best) or mean * best <= 0:
        return 0.0
    return min(mean / best, best / mean)


def _draw_legend(figure: Figure, comparison: Comparison) -> None:
    from matplotlib.lines import Line2D

    styles: Mapping[str, dict[str, Any]] = _styles(comparison.methods)
    handles = [Line2D([], [], linewidth=2, **style) for style in styles.values()]
    columns = min(len(handles), 6)
    figure.legend(handles, list(styles), loc="outside upper center", ncols=columns, frameon=False, fontsize=9)


def _short(value: float) -> str:
    return f"{value:.4g}"
