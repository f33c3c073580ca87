"""Sequences and live pictures: a network that keeps its head, and files, folders and cameras to read and write."""

from __future__ import annotations

from fusionblocks._lazy import lazy_attributes

_MODULES = {
    "AdaptiveRange": ".ranges",
    "FolderWriter": ".writing",
    "Frame": ".frames",
    "Frames": ".frames",
    "FusionStream": ".stream",
    "Pairing": ".pairing",
    "VideoWriter": ".writing",
    "Window": ".window",
    "open_frames": ".frames",
    "open_writer": ".writing",
}

__all__ = sorted(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy_attributes(__name__, _MODULES)
