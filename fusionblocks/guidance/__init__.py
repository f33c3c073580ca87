"""Guidance: foundation models (CLIP, SAM) that tell a fusion network what is in the picture."""

from __future__ import annotations

from fusionblocks._lazy import lazy_attributes

_MODULES: dict[str, str] = {
    "CLIPDegradationClassifier": ".clip.classifier",
    "DegradationOutput": ".clip.classifier",
    "SAMMasks": ".sam.masks",
    "SAMPrompts": ".sam.prompts",
    "SegmentedMasks": ".sam.masks",
    "add_lora": ".lora",
    "load_lora": ".lora",
    "lora_state_dict": ".lora",
    "masks_to_map": ".mask_maps",
    "merge_lora": ".lora",
    "unmerge_lora": ".lora",
}

__all__ = sorted(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy_attributes(__name__, _MODULES)
