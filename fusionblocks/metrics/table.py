"""The table that an evaluation ends in: one row per picture, one column per metric, mean and spread below."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from fusionblocks._support.files import whole_file
from fusionblocks.metrics.conventions import METRICS

if TYPE_CHECKING:
    import pandas

_LATEX = str.maketrans(
    {
        **{special: f"\\{special}" for special in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
    }
)


@dataclass(frozen=True, eq=False)
class MetricTable:
    """Values of several metrics for several pictures, with their mean and spread, and ways to write them down.

    ``str(table)`` is its Markdown.

    Args:
        names: The pictures, one a row.
        metrics: The metrics' names, one a column.
        values: ``(pictures, metrics)``, float64.
        convention: The convention that the values follow.

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import MetricTable
        >>> values = torch.tensor([[6.0, 0.5], [7.0, 0.75]], dtype=torch.float64)
        >>> table = MetricTable(("a.png", "b.png"), ("EN", "VIF"), values, convention="cddfuse")
        >>> table.mean
        {'EN': 6.5, 'VIF': 0.625}
        >>> print(table.to_markdown(digits=3))
        | | EN ↑ | VIF ↑ |
        | :-- | --: | --: |
        | mean | 6.500 | 0.625 |
        | std | 0.500 | 0.125 |
    """

    names: tuple[str, ...]
    metrics: tuple[str, ...]
    values: Tensor
    convention: str

    @property
    def mean(self) -> dict[str, float]:
        """The mean of each metric over the pictures."""
        return self._row(self.values.mean(0))

    @property
    def std(self) -> dict[str, float]:
        """The standard deviation of each metric over the pictures (divided by their number, 0 for one picture)."""
        return self._row(self.values.std(0, correction=0))

    @property
    def per_image(self) -> dict[str, dict[str, float]]:
        """The value of each metric for each picture, ``{picture: {metric: value}}``."""
        return {name: self._row(row) for name, row in zip(self.names, self.values)}

    def __len__(self) -> int:
        return len(self.names)

    def __str__(self) -> str:
        return self.to_markdown()

    def to_pandas(self) -> pandas.DataFrame:
        """Return a data frame, one row per picture (index ``image``), one column per metric.

        Raises:
            ModuleNotFoundError: pandas is not installed; ``pip install "fusionblocks[metrics]"`` installs it.
        """
        try:
            import pandas
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                'MetricTable.to_pandas needs pandas: pip install "fusionblocks[metrics]"', name="pandas"
            ) from error
        index = pandas.Index(self.names, name="image")
        return pandas.DataFrame(self.values.numpy().copy(), index=index, columns=list(self.metrics))

    def to_csv(self, path: str | os.PathLike[str], *, summary: bool = False) -> None:
        """Write one line per picture, with all digits; the file appears whole or not at all.

        Args:
            path: The file, replaced if it is there; its folder must exist.
            summary: Whether two lines ``mean`` and ``std`` follow.

        Raises:
            FileNotFoundError: The folder does not exist.
            ValueError: ``path`` is there and no regular file.
        """
        lines = [["image", *self.metrics], *([name, *map(repr, row)] for name, row in self._rows(True, summary))]
        with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(lines)

    def to_markdown(self, *, digits: int = 4, images: bool = False) -> str:
        """Return a Markdown table of mean and spread, arrows telling which direction is better.

        Args:
            digits: Digits behind the point.
            images: Whether a row per picture comes first.
        """
        header = ["", *(f"{name} {'↑' if METRICS[name].direction > 0 else '↓'}" for name in self.metrics)]
        rows = [[name.replace("|", "\\|"), *_format(row, digits)] for name, row in self._rows(images, True)]
        lines = [header, [":--", *["--:"] * len(self.metrics)], *rows]
        return "\n".join("|" + "|".join(f" {cell} " if cell else " " for cell in line) + "|" for line in lines)

    def to_latex(self, *, digits: int = 4, images: bool = False) -> str:
        r"""Return a LaTeX ``tabular`` of mean and spread (package ``booktabs``), arrows telling the better direction.

        Args:
            digits: Digits behind the point.
            images: Whether a row per picture comes first.
        """
        arrows = {1: r"$\uparrow$", -1: r"$\downarrow$"}
        header = ["", *(f"{name.translate(_LATEX)} {arrows[METRICS[name].direction]}" for name in self.metrics)]
        rows = [[name.translate(_LATEX), *_format(row, digits, "${}$")] for name, row in self._rows(images, True)]
        body = [" & ".join(row) + r" \\" for row in rows]
        if images:
            body.insert(len(self.names), r"\midrule")
        top = [rf"\begin{{tabular}}{{l{'r' * len(self.metrics)}}}", r"\toprule", " & ".join(header) + r" \\"]
        return "\n".join([*top, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"])

    def _row(self, values: Tensor) -> dict[str, float]:
        return dict(zip(self.metrics, values.tolist(), strict=True))

    def _rows(self, images: bool, summary: bool) -> Iterable[tuple[str, Sequence[float]]]:
        if images:
            yield from zip(self.names, self.values.tolist(), strict=True)
        if summary:
            yield "mean", list(self.mean.values())
            yield "std", list(self.std.values())


def _format(values: Sequence[float], digits: int, negative: str = "{}") -> list[str]:
    # LaTeX sets a minus sign in mathematics alone
    cells = [f"{value:.{digits}f}" for value in values]
    return [negative.format(cell) if cell.startswith("-") else cell for cell in cells]
