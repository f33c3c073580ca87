"""The ``fusionblocks`` command."""

from __future__ import annotations

import typer

from fusionblocks.cli import evaluate, fuse, info, masks, train, train_guidance

app = typer.Typer(
    help="Fuse infrared and visible pictures.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for command in (
    fuse.fuse,
    masks.masks,
    train.train,
    train_guidance.train_guidance,
    evaluate.evaluate,
    info.models,
    info.env,
    info.demo,
):
    app.command()(command)


def main() -> None:
    """Run the command line."""
    app()
