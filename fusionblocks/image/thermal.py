"""Which counts of a thermal camera become black and which white."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

BLOCK = 8
"""Side of the squares whose medians stand for the scene: bad pixels and clusters of them do not move a median."""
LEAST_SPAN = 128
"""Counts between black and white, at least."""
NOISE_SPAN = 32
"""Times the sensor's noise between black and white, at least: noise of a flat scene stays below 8 levels of 255."""
MOST_NOISE = 64
"""Counts of noise beyond which differences between neighbours are the scene's."""
MARGIN = 0.1
"""Share of the scene's span by which single pixels may lie beyond its squares and count."""
APART = 0.5
"""Share of the scene's span by which an extreme code stands apart, so that it means no data."""
BAD_LINES = 0.05
"""Share of a picture's rows, and of its columns, that may be bad."""


def thermal_limits(counts: np.ndarray) -> tuple[float, float]:
    """Return the counts of a 16-bit thermal picture that become black and white.

    They are the percentiles 0.5 and 99.5 of the scene. What does not belong to the scene does not count: pixels without
    data, of the extreme codes 0 and 65535 where these stand apart from all others, dead or hot pixels, up to clusters
    of two by two, and whole dead rows and columns, side by side or not. Up to a twentieth of the picture may be bad.
    Black and white lie at least 128 counts apart, and 32 times the sensor's noise, so that the noise of a flat scene
    stays noise.

    Args:
        counts: uint16 ``(H, W)``, or ``(H, W, C)`` whose channels are averaged.

    Returns:
        The counts that become 0 and 1, the first below the second; twice the same count if all are equal.

    Example:
        >>> import numpy as np
        >>> from fusionblocks.image import thermal_limits
        >>> scene = np.linspace(29000, 31000, 120 * 160).reshape(120, 160).astype(np.uint16)
        >>> scene[::20, ::20] = 65535  # hot pixels
        >>> low, high = thermal_limits(scene)
        >>> 28900 < low < 29100 and 30900 < high < 31100
        True
    """
    counts = np.asarray(counts)
    counts = counts.mean(axis=2) if counts.ndim == 3 else counts
    smallest, largest = float(counts.min()), float(counts.max())
    if smallest == largest:
        return smallest, largest
    valid = with_data(counts)
    counts = _without_bad_lines(counts, valid)
    squares = _squares(counts)
    scene = squares[(squares >= valid[0]) & (squares <= valid[1])]
    if scene.size < 16:  # a tiny picture, or one without a scene
        scene = counts[(counts >= valid[0]) & (counts <= valid[1])]
    low, high = np.percentile(scene, (0.5, 99.5))
    margin = MARGIN * (high - low)
    near = counts[(counts >= max(low - margin, valid[0])) & (counts <= min(high + margin, valid[1]))]
    low, high = np.percentile(near, (0.5, 99.5)) if near.size else (low, high)
    missing = max(LEAST_SPAN, NOISE_SPAN * min(_noise(counts, valid), MOST_NOISE)) - (high - low)
    if missing > 0:
        low, high = low - missing / 2, high + missing / 2
    return float(low), float(high)


def auto_range(values: np.ndarray) -> tuple[float, float] | None:
    """Return what becomes black and white in a thermal picture by its own scene, in its own units.

    Args:
        values: ``(H, W)`` or ``(H, W, C)``. Of uint16 see :func:`thermal_limits`; of other integers and floats the
            percentiles 0.5 and 99.5 of what is finite count.

    Returns:
        Two numbers, the first below the second; None for uint8, whose levels stay, and where nothing is finite.

    Example:
        >>> import numpy as np
        >>> from fusionblocks.image import auto_range
        >>> [round(limit, 1) for limit in auto_range(np.linspace(20.0, 40.0, 1001)[None])]
        [20.1, 39.9]
    """
    if values.dtype == np.uint8:
        return None
    if values.dtype == np.uint16:
        low, high = thermal_limits(values)
    else:
        known = values[np.isfinite(values)]
        if not known.size:
            return None
        low, high = (float(x) for x in np.percentile(known.astype(np.float64), (0.5, 99.5)))
    return (low, high) if low < high else (low - 0.5, low + 0.5)


def scale_range(array: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return an array with ``low`` at 0 and ``high`` at 1, clipped between.

    Args:
        array: Any real dtype and shape.
        low: The value that becomes 0.
        high: The value that becomes 1; where it equals ``low``, all becomes 0.

    Returns:
        Float32 in [0, 1], of the same shape. NaN stays NaN.

    Example:
        >>> import numpy as np
        >>> from fusionblocks.image import scale_range
        >>> scale_range(np.array([10, 20, 50], np.uint16), 20, 40).tolist()
        [0.0, 0.0, 1.0]
    """
    if low == high:
        return np.zeros(array.shape, np.float32)
    # a float32 has room for 24 bits: counts of 16 bits lose nothing
    scaled: Any = array.astype(np.float32 if array.dtype.itemsize <= 2 else np.float64)
    scaled -= low
    scaled /= high - low
    return np.clip(scaled, 0, 1, out=scaled).astype(np.float32, copy=False)


def check_range(name: str, limits: Any) -> tuple[float, float]:
    """Return two finite numbers, the first below the second.

    Args:
        name: The argument's name, for errors.
        limits: What was given.

    Raises:
        TypeError: If it is not a pair of numbers.
        ValueError: If a number is not finite, or the first is not below the second.

    Example:
        >>> from fusionblocks.image import check_range
        >>> check_range("thermal_range", (20, 45))
        (20.0, 45.0)
    """
    numbers = isinstance(limits, tuple | list) and len(limits) == 2
    if not numbers or not all(isinstance(x, int | float | np.number) and not isinstance(x, bool) for x in limits):
        raise TypeError(f"{name} must be two numbers (low, high) in the picture's own units, got {limits!r}")
    low, high = (float(x) for x in limits)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"{name} must be two finite numbers, the first below the second, got {limits!r}")
    return low, high


def with_data(counts: np.ndarray) -> tuple[float, float]:
    """Return the smallest and the largest count that holds data: extreme codes that stand apart do not.

    Args:
        counts: uint16 of any shape.
    """
    inner = counts[(counts > 0) & (counts < 65535)]
    first, last = 0.0, 65535.0
    if inner.size < max(0.01 * counts.size, 16):
        return first, last
    low, high = np.percentile(inner, (1, 99))
    # of an inner scene that is one count alone nothing stands apart
    span = max(high - low, LEAST_SPAN) if inner.min() < inner.max() else math.inf
    if low - first > APART * span:
        first = 1.0
    if last - high > APART * span:
        last = 65534.0
    return first, last


def _without_bad_lines(counts: np.ndarray, valid: tuple[float, float]) -> np.ndarray:
    """Return the picture without the rows and columns whose medians stand apart from those of nearly all others."""
    for axis in (1, 0):  # of rows, then of columns
        every = max(1, counts.shape[axis] // 1024)  # a thousand pixels tell a line's median
        medians = np.median(counts[:, ::every] if axis else counts[::every], axis=axis)
        low, high = np.percentile(medians, (100 * BAD_LINES, 100 - 100 * BAD_LINES))
        reach = max(high - low, LEAST_SPAN)
        bad = (medians < low - reach) | (medians > high + reach)
        # lines without data are left to those who know the extreme codes
        bad &= (medians >= valid[0]) & (medians <= valid[1])
        if bad.mean() <= BAD_LINES:
            counts = np.delete(counts, np.flatnonzero(bad), axis=1 - axis)
    return counts


def _squares(counts: np.ndarray) -> np.ndarray:
    """Return the medians of the picture's squares."""
    rows, columns = (size // BLOCK for size in counts.shape)
    if not rows or not columns:
        return np.empty(0)
    parts: Any = counts[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK)
    parts = parts.transpose(0, 2, 1, 3).reshape(rows * columns, BLOCK * BLOCK)
    return np.partition(parts, BLOCK * BLOCK // 2, axis=1)[:, BLOCK * BLOCK // 2].astype(np.float64)


def _noise(counts: np.ndarray, valid: tuple[float, float]) -> float:
    """Return the standard deviation of the sensor's noise, from the differences of neighbours with data."""
    rows = counts[:: max(1, counts.size // 2**20)].astype(np.float64)  # a million differences will do
    data = (rows >= valid[0]) & (rows <= valid[1])
    differences = np.diff(rows, axis=1)[data[:, 1:] & data[:, :-1]]
    return float(np.median(np.abs(differences))) / (0.6745 * math.sqrt(2)) if differences.size else 0.0
