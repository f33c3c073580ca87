"""Data: synthetic aligned infrared-visible scenes, degradations, and folders of pictures by name and by class."""

from __future__ import annotations

from fusionblocks._lazy import lazy_attributes

_MODULES = {
    "CLASS_NAMES": ".synthetic",
    "DEGRADATIONS": ".degradations",
    "DegradedPictures": ".labelled",
    "FolderGroups": ".pairs",
    "FolderPairs": ".pairs",
    "ImageGroup": ".pairs",
    "ImagePair": ".pairs",
    "LabelledPictures": ".labelled",
    "SyntheticScene": ".synthetic",
    "class_folders": ".labelled",
    "degrade": ".degradations",
    "hold_out": ".labelled",
    "match_folders": ".pairs",
    "pair_folders": ".pairs",
    "synthetic_scene": ".synthetic",
}

__all__ = sorted(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy_attributes(__name__, _MODULES)
