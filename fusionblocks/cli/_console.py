"""What the commands share: where they print, how they refuse a call, the progress bar."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)

USAGE_ERROR = 2
SOME_FAILED = 1
INTERRUPTED = 130  # as shells count Ctrl-C
_NO_LIMIT = 100_000  # columns
BAD_INPUT = (ValueError, TypeError, OSError)
"""What the library raises on input that it cannot serve."""


PatternOption = Annotated[
    tuple[str, str] | None,
    typer.Option(
        "--pattern",
        metavar="INFRARED VISIBLE",
        help="What the names of either camera's files look like, * for what they have in common: '*_ir' '*_vi'.",
    ),
]


def one_line(error: object) -> str:
    """Return a message without its line breaks."""
    return " ".join(str(error).split())


def told_pairs(count: int, rule: str) -> str:
    """Return by which rule how many pairs were found, before the work begins."""
    return f"{count} pair{'s' * (count != 1)} {rule}"


def refuse(error: object) -> NoReturn:
    """Say in one red line what was wrong with the call, and leave with status 2."""
    err.print(f"[bold red]error:[/] [red]{escape(one_line(error))}[/]", highlight=False)
    raise typer.Exit(USAGE_ERROR)


def report_skipped(failures: list[str]) -> None:
    """Say in a line each what was left out, and why."""
    for failure in failures:
        err.print(f"[bold red]skipped:[/] {escape(failure)}", highlight=False)


class Warnings:
    """What the library warned of, a line for each kind however many pictures it is said of."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._counts: Counter[str] = Counter()

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Note what is warned of within."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            yield
        for warning in caught:
            message = str(warning.message)
            kind = message.partition(":")[0]
            self._first.setdefault(kind, f"{name}: {message}" if name else message)
            self._counts[kind] += 1

    def report(self) -> None:
        """Say it."""
        for kind, first in self._first.items():
            more = f" (and {self._counts[kind] - 1} more like it)" if self._counts[kind] > 1 else ""
            err.print(f"[yellow]warning:[/] {escape(first)}{more}", highlight=False)


def print_whole(table: Table) -> None:
    """Print a table as wide as it is: numbers that a narrow terminal wraps beat numbers that are cut."""
    width = Measurement.get(out, out.options.update(max_width=_NO_LIMIT), table).maximum
    Console(width=max(width, out.width)).print(table)


def progress_bar(verb: str) -> Progress:
    """Return a progress bar whose tasks show a field ``name``."""
    columns = (
        TextColumn(verb),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[name]}"),
    )
    return Progress(*columns, console=err)


def open_device(name: str) -> Any:
    """Return the device called ``name`` after using it once; ``auto`` is a GPU where there is one."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name} cannot be used here: {str(error).splitlines()[0]}") from error
    return device
