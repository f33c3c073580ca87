"""Pictures as tensors: colour, padding, filters, pyramids, structural similarity, reading and writing."""

from __future__ import annotations

from fusionblocks._lazy import lazy_attributes

_MODULES = {
    # checks
    "check_pair": ".checks",
    "check_picture": ".checks",
    "check_values": ".checks",
    # padding
    "Padding": ".padding",
    "crop": ".padding",
    "pad_to_multiple": ".padding",
    # colour
    "luma": ".color",
    "rgb_to_ycbcr": ".color",
    "with_luma": ".color",
    "ycbcr_to_rgb": ".color",
}

__all__ = sorted(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy_attributes(__name__, _MODULES)
