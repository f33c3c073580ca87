"""Fusion metrics on batches of gray pictures, equal to the published evaluators, every convention named."""

from __future__ import annotations

from fusionblocks._lazy import lazy_attributes

_MODULES: dict[str, str] = {}

__all__ = sorted(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy_attributes(__name__, _MODULES)
