"""What a picture shows that a camera's picture should not: swapped bytes, swapped folders, nothing at all."""

from __future__ import annotations

import numpy as np

from fusionblocks.image.palettes import COLOURED

ROWS = 128
"""Rows of a picture that are looked at, about."""
SMOOTHER = 4.0
"""Times that a picture's neighbours are nearer to each other with its bytes swapped, from which they are swapped."""
WRAPPED = 0.7
"""Share of the steps between neighbours left if levels go round from 255 to 0, below which they do; noise has 0.75."""
LEAST_STEP = 8
"""Mean step between neighbours, in levels, from which levels may go round."""
LEAST_COLOURED = 0.05
"""Share of coloured pixels from which a picture is one of a colour camera."""


def doubts(infrared: np.ndarray, visible: np.ndarray) -> list[str]:
    """Return what looks wrong about a pair, a sentence each with its evidence; none if nothing does.

    Args:
        infrared: ``(H, W)`` or ``(H, W, C)`` in the camera's own unit.
        visible: ``(H, W)`` or ``(H, W, C)``.

    Example:
        >>> import numpy as np
        >>> from fusionblocks.image import doubts
        >>> visible = np.arange(256, dtype=np.uint8).reshape(16, 16)
        >>> doubts(np.full((16, 16), 7, np.uint8), visible)
        ['infrared is empty: every value is 7']
    """
    found = []
    for name, picture in (("infrared", infrared), ("visible", visible)):
        part = picture[:: max(1, picture.shape[0] // ROWS)]
        if part.min() == part.max() and picture.min() == picture.max():
            found.append(f"{name} is empty: every value is {picture.flat[0]:g}")
        elif part.dtype == np.uint16 and _step(part) > SMOOTHER * _step(part.byteswap()):
            found.append(
                f"{name} seems to have its bytes swapped: neighbours differ by {_step(part):.0f} counts on average, "
                f"with swapped bytes by {_step(part.byteswap()):.0f}"
            )
        elif part.dtype == np.uint8 and part.ndim == 2 and _goes_round(part):
            found.append(
                f"{name} seems to hold the low bytes of 16-bit counts: its levels go round from 255 to 0 at many edges"
            )
    if not found and _coloured(infrared) and not _coloured(visible, 0):
        share = _share_coloured(infrared)
        found.append(
            f"infrared and visible seem to be swapped: {share:.0%} of the infrared pixels have a colour, "
            "and no visible one has"
        )
    return found


def _step(part: np.ndarray) -> float:
    """Return the mean step between neighbours."""
    return float(np.abs(np.diff(part.astype(np.float32), axis=1)).mean()) if part.shape[1] > 1 else 0.0


def _goes_round(part: np.ndarray) -> bool:
    step = _step(part)
    if step < LEAST_STEP:
        return False
    difference = np.abs(np.diff(part.astype(np.int16), axis=1))
    return float(np.minimum(difference, 256 - difference).mean()) < WRAPPED * step


def _share_coloured(picture: np.ndarray) -> float:
    if picture.ndim != 3 or picture.shape[2] < 3:
        return 0.0
    part = picture[:: max(1, picture.shape[0] // ROWS), :, :3].astype(np.float32)
    full = 1.0 if np.issubdtype(picture.dtype, np.floating) else float(np.iinfo(picture.dtype).max)
    return float((part.max(axis=2) - part.min(axis=2) >= COLOURED / 255 * full).mean())


def _coloured(picture: np.ndarray, least: float = LEAST_COLOURED) -> bool:
    return _share_coloured(picture) > least
