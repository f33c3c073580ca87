"""Draw the tracked tables: how many times faster than the published formulation each implementation is.

python -m benchmarks.plot --output plots
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import harness, report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito
BAR = 0.2  # inches


def draw(rows: report.Rows) -> Figure:
    """Draw a group of bars a case and a bar an implementation, times faster than published, on a logarithmic axis."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    cases = report.cases(rows)
    names = list(dict.fromkeys(name for case in cases for name in drawn(case)))
    plain = list(dict.fromkeys(name.removesuffix(report.COMPILED) for name in names))
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(plain)}
    bars = sum(len(drawn(case)) + 1 for case in cases)
    figure = Figure(figsize=(8, BAR * bars + 1.2), layout="constrained")
    axes = figure.subplots()
    place, ticks, labels = 0.0, [], []
    for case in cases:
        top = place
        for name in drawn(case):
            faster = float(case[name]["times_faster"])
            colour = colours[name.removesuffix(report.COMPILED)]
            face = "white" if name.endswith(report.COMPILED) else colour
            axes.barh(place, faster - 1, left=1, facecolor=face, edgecolor=colour, label=name)
            axes.annotate(f" {faster:.2g}×", (max(faster, 1), place), va="center", fontsize=7)
            place += 1
        ticks.append((top + place - 1) / 2)
        labels.append(title(next(iter(case.values()))))
        place += 1
    axes.set_yticks(ticks, labels, fontsize=7)
    axes.invert_yaxis()
    axes.set_xscale("log", subs=())
    axes.margins(x=0.12, y=0.02)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}×")
    axes.axvline(1, color="#333333", linewidth=1)
    axes.set_xlabel("times faster than the published formulation")
    handles = dict(zip(*reversed(axes.get_legend_handles_labels())))
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=min(len(names), 4), fontsize=8)
    return figure


def drawn(case: Mapping[str, report.Row]) -> list[str]:
    """Return the implementations to draw: all but the yardstick, and the reference where it serves as ours."""
    ours = case.get(report.OURS)
    ours_is_reference = ours is not None and ours["backend"] == "torch"
    names = [
        name
        for name in case
        if name != report.PUBLISHED
        and not (ours_is_reference and name.removesuffix(report.COMPILED) == report.REFERENCE)
    ]
    return sorted(names, key=lambda name: (name.removesuffix(report.COMPILED), name))


def title(row: report.Row) -> str:
    """Return a case in a few words."""
    backward = " and backward" if "backward" in row["passes"] else ""
    return f"{row['name']} {row['precision']}{backward}\n{row['shapes']}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot", description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=harness.RESULTS, help="folder of the tables")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    for suite in report.SUITES:
        for place in report.PLACES:
            rows = report.read(suite, place, options.results)
            if rows:
                file = options.output / f"{suite}_{place}.png"
                draw(rows).savefig(file, dpi=150)
                print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
