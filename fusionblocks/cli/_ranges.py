"""The option ``--thermal-range``: two numbers or one word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from fusionblocks.image.infrared import ThermalRange

NAME = "--thermal-range"
ThermalRangeOption = Annotated[
    str | None,
    typer.Option(
        NAME,
        metavar="LOW HIGH|auto|scene",
        help="What is black and white in infrared: numbers in the files' own unit, each picture's own range, or that "
        "of all pictures together.",
    ),
]


class RangeCommand(TyperCommand):
    """A command whose ``--thermal-range`` takes two numbers or one word."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Join the two numbers before the arguments are parsed."""
        joined: list[str] = []
        rest = list(args)
        while rest:
            joined.append(rest.pop(0))
            if joined[-1] == NAME and len(rest) > 1 and _is_number(rest[0]) and _is_number(rest[1]):
                joined.append(f"{rest.pop(0)} {rest.pop(0)}")
        return super().parse_args(ctx, joined)


def parse_range(value: str | None) -> ThermalRange:
    """Return what ``--thermal-range`` says, as :func:`fusionblocks.fuse` takes it."""
    from fusionblocks.image import check_range

    if value in (None, "auto", "scene"):
        return cast("ThermalRange", value)
    numbers = str(value).split()
    if len(numbers) != 2 or not all(map(_is_number, numbers)):
        raise ValueError(f"{NAME} must be two numbers, 'auto' or 'scene', got {value!r}")
    return check_range(NAME, (float(numbers[0]), float(numbers[1])))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
