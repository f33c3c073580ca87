"""Guidance: foundation models (CLIP, SAM) that tell a fusion network what is in the picture."""

from __future__ import annotations

from fusionblocks._lazy import lazy_attributes

_MODULES: dict[str, str] = {}

__all__ = sorted(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy_attributes(__name__, _MODULES)
