"""Several methods on the same pictures: means, the best of each metric, tables for papers."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fusionblocks._support.files import whole_file
from fusionblocks.metrics.conventions import METRICS
from fusionblocks.metrics.table import _LATEX as LATEX
from fusionblocks.metrics.table import MetricTable

_ARROWS = {1: "↑", -1: "↓"}
_LATEX_ARROWS = {1: r"$\uparrow$", -1: r"$\downarrow$"}
_PLOT_SUFFIXES = (".pdf", ".png", ".svg")


class Comparison:
    """Several fusion methods on the same pictures, scored with the same metrics.

    Args:
        tables: The methods' tables by name, as :class:`FusionEvaluator` computes them.

    Raises:
        ValueError: There is no table, or two of them have different metrics, conventions or pictures.

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import Comparison, FusionEvaluator
        >>> infrared, visible = torch.rand(2, 4, 1, 32, 32)
        >>> methods = {"mean": (infrared + visible) / 2, "maximum": torch.maximum(infrared, visible)}
        >>> tables = {}
        >>> for name, fused in methods.items():
        ...     evaluator = FusionEvaluator(metrics=("SD", "MSE"))
        ...     evaluator.update(fused, infrared, visible)
        ...     tables[name] = evaluator.compute()
        >>> Comparison(tables).best("MSE")
        ('mean',)
    """

    def __init__(self, tables: Mapping[str, MetricTable]) -> None:
        if not tables:
            raise ValueError("tables must hold at least one method, got none")
        self.tables = dict(tables)
        self.methods = tuple(self.tables)
        first, *others = self.methods
        table = self.tables[first]
        self.metrics, self.names, self.convention = table.metrics, table.names, table.convention
        for other in others:
            table = self.tables[other]
            for what, ours, theirs in (
                ("metrics", self.metrics, table.metrics),
                ("convention", (self.convention,), (table.convention,)),
                ("pictures", self.names, table.names),
            ):
                if ours != theirs:
                    raise ValueError(
                        f"tables must have the same {what}, in the same order, got {_some(ours)} for {first} and "
                        f"{_some(theirs)} for {other}"
                    )
        self.means = {method: table.mean for method, table in self.tables.items()}

    def values(self, method: str, metric: str) -> list[float]:
        """Return a metric's value for each picture."""
        return self.tables[method].values[:, self.metrics.index(metric)].tolist()

    def direction(self, metric: str) -> int:
        """Return 1 where a higher value is better, -1 where a lower one is."""
        return METRICS[metric].direction

    def best(self, metric: str) -> tuple[str, ...]:
        """Return the methods with the best mean: one, or several that are equal."""
        means = {method: self.means[method][metric] for method in self.methods}
        best = max(means.values(), key=lambda mean: mean * self.direction(metric))
        return tuple(method for method, mean in means.items() if mean == best)

    def header(self, arrows: Mapping[int, str] = _ARROWS) -> list[str]:
        """Return the metrics' names with an arrow each: up where a higher value is better."""
        return [f"{metric} {arrows[self.direction(metric)]}" for metric in self.metrics]

    def rows(self, mark: Callable[[str], str], *, digits: int = 3) -> list[list[str]]:
        """Return the means as text, a row a method; what reads as the best of a metric has gone through ``mark``."""
        columns = []
        for metric in self.metrics:
            cells = {method: f"{self.means[method][metric]:.{digits}f}" for method in self.methods}
            best = cells[self.best(metric)[0]]
            columns.append([mark(cell) if cell == best else cell for cell in cells.values()])
        return [list(row) for row in zip(*columns)]

    def to_markdown(self, *, digits: int = 3) -> str:
        """Return the means as a Markdown table, the best of each metric in bold."""
        rows = self.rows("**{}**".format, digits=digits)
        methods = [method.replace("|", r"\|") for method in self.methods]
        lines = [
            ["method", *self.header()],
            ["---", *["---:"] * len(self.metrics)],
            *([method, *row] for method, row in zip(methods, rows)),
        ]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def to_latex(self, *, digits: int = 3) -> str:
        """Return the means as a LaTeX table (it wants the package booktabs), the best of each metric in bold."""
        rows = self.rows(r"\textbf{{{}}}".format, digits=digits)
        header = [metric.translate(LATEX) + _LATEX_ARROWS[self.direction(metric)] for metric in self.metrics]
        return "\n".join(
            [
                rf"\begin{{tabular}}{{l{'r' * len(self.metrics)}}}",
                r"\toprule",
                rf"Method & {' & '.join(header)} \\",
                r"\midrule",
                *(
                    rf"{method.translate(LATEX)} & {' & '.join(map(_minus, row))} \\"
                    for method, row in zip(self.methods, rows)
                ),
                r"\bottomrule",
                r"\end{tabular}",
            ]
        )

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write every value: a row a method and picture, a column a metric. The file is whole or absent."""
        with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["method", "image", *self.metrics])
            for method, table in self.tables.items():
                for name, values in zip(self.names, table.values.tolist(), strict=True):
                    writer.writerow([method, name, *map(repr, values)])

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Write the curves and the radar chart of :func:`plot_overview` as PNG, PDF or SVG, by the suffix."""
        from fusionblocks.metrics.plots import plot_overview

        suffix = check_plot_suffix(path)
        figure = plot_overview(self)
        with whole_file(path) as temporary:
            figure.savefig(temporary, format=suffix.lstrip("."))


def check_plot_suffix(path: str | os.PathLike[str]) -> str:
    """Return the suffix of a figure's file, in lower case, after checking that it can be written."""
    suffix = Path(path).suffix.lower()
    if suffix not in _PLOT_SUFFIXES:
        raise ValueError(f"a plot's file must end in one of {', '.join(_PLOT_SUFFIXES)}, got {path}")
    return suffix


def _minus(cell: str) -> str:
    """Return a cell of a LaTeX table, a negative number set as mathematics: elsewhere its sign is a hyphen."""
    return re.sub(r"-([\d.]+|inf)", r"$-$\1", cell)


def _some(values: Sequence[str]) -> str:
    return ", ".join(values[:3]) + (f", ... ({len(values)})" if len(values) > 3 else "")
