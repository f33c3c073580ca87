"""The ``fusionblocks`` command."""

from __future__ import annotations

from typing import Annotated

import typer

from fusionblocks import __version__
from fusionblocks.cli import _ranges, align, evaluate, export, fuse, info, masks, train, train_guidance, video

app = typer.Typer(
    help="Fuse infrared and visible pictures.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for command in (
    fuse.fuse,
    video.video,
    align.align,
    masks.masks,
    train.train,
    train_guidance.train_guidance,
    evaluate.evaluate,
    export.export,
    info.models,
    info.env,
    info.demo,
):
    app.command(cls=_ranges.RangeCommand)(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fusionblocks {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Fuse infrared and visible pictures."""


def main() -> None:
    """Run the command line."""
    app()
