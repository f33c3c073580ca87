"""What the commands share: where they print, how they refuse a call, the progress bar."""

from __future__ import annotations

from typing import Any, NoReturn

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


def one_line(error: object) -> str:
    """Return a message without its line breaks."""
    return " ".join(str(error).split())


def refuse(error: object) -> NoReturn:
    """Say in one red line what was wrong with the call, and leave with status 2."""
    err.print(f"[bold red]error:[/] [red]{escape(one_line(error))}[/]", highlight=False)
    raise typer.Exit(USAGE_ERROR)


def report_skipped(failures: list[str]) -> None:
    """Say in a line each what was left out, and why."""
    for failure in failures:
        err.print(f"[bold red]skipped:[/] {escape(failure)}", highlight=False)


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
