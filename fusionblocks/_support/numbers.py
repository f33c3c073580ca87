"""Checks of the numbers that describe a picture to be made."""

from __future__ import annotations

import math
import operator

import numpy as np


def check_whole(name: str, value: object, least: int) -> int:
    """Return an integer of at least ``least``, or say by name what came instead."""
    if isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r} of type {type(value).__name__}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


def check_number(name: str, value: object, most: float) -> float:
    """Return a number in ``[0, most]``, or say by name what came instead."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating | np.integer):
        raise TypeError(f"{name} must be a number, got {value!r} of type {type(value).__name__}")
    if not (math.isfinite(value) and 0 <= value <= most):
        raise ValueError(f"{name} must lie in [0, {most:g}], got {value}")
    return float(value)
