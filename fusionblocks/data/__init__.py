"""Data: synthetic aligned infrared-visible scenes, and folders of pictures matched by name."""

from __future__ import annotations

from fusionblocks._lazy import lazy_attributes

_MODULES = {
    "CLASS_NAMES": ".synthetic",
    "DEGRADATIONS": ".degradations",
    "FolderGroups": ".pairs",
    "FolderPairs": ".pairs",
    "ImageGroup": ".pairs",
    "ImagePair": ".pairs",
    "SyntheticScene": ".synthetic",
    "degrade": ".degradations",
    "match_folders": ".pairs",
    "pair_folders": ".pairs",
    "synthetic_scene": ".synthetic",
}

__all__ = sorted(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy_attributes(__name__, _MODULES)
