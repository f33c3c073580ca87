"""Checks of a recipe's values."""

from __future__ import annotations

from collections.abc import Sequence

from fusionblocks._support.names import closest


def check_choice(name: str, value: str, known: Sequence[str]) -> None:
    """Raise unless a value is one of those known."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}{closest(str(value), list(known))}")


def check_range(
    name: str,
    value: float | None,
    *,
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> None:
    """Raise unless a number lies in its range; None does."""
    if value is None:
        return
    limits = {"at least": least, "above": above, "below": below}
    fits = (least is None or value >= least, above is None or value > above, below is None or value < below)
    if not all(fits):
        wanted = " and ".join(f"{word} {limit}" for word, limit in limits.items() if limit is not None)
        raise ValueError(f"{name} must be {wanted}, got {value}")
