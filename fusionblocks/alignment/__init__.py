"""Alignment of two cameras: the map between their pixels, from scenes, points or boards."""

from __future__ import annotations

from fusionblocks._lazy import lazy_attributes

_MODULES = {
    "Alignment": ".alignment",
    "align": ".estimation",
    "preview": ".checking",
    "read_points": ".points",
}

__all__ = sorted(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy_attributes(__name__, _MODULES)
