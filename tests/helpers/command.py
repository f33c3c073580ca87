"""The command line, called in this process."""

from __future__ import annotations

from typer.testing import CliRunner

from fusionblocks.cli import app


def run(*arguments: object) -> tuple[int, str]:
    """Return the exit status and all that was printed; a bug's exception passes through."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output
