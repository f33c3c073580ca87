"""Data: pairs from folders and known datasets, joint transforms, synthetic scenes, degradations, classes."""

from __future__ import annotations

from fusionblocks._lazy import lazy_attributes

_MODULES = {
    "CLASS_NAMES": ".synthetic.scenes",
    "Compose": ".transforms",
    "DEGRADATIONS": ".degradations",
    "DegradedPictures": ".labelled",
    "FolderGroups": ".pairs",
    "FolderPairs": ".pairs",
    "ImageGroup": ".pairs",
    "ImagePair": ".pairs",
    "LAYOUTS": ".layouts",
    "LabelledPictures": ".labelled",
    "Layout": ".layouts",
    "MASKS": ".label_masks",
    "PairedCrop": ".transforms",
    "PairedDegrade": ".transforms",
    "PairedFlip": ".transforms",
    "PairedMisalign": ".misalignment",
    "PairedImages": ".paired",
    "PairedRotate": ".transforms",
    "PairedTransform": ".transforms",
    "ResumableSampler": ".sampling",
    "StreamedPairs": ".streaming",
    "RigPair": ".synthetic.rig",
    "SyntheticRig": ".synthetic.rig",
    "SyntheticScene": ".synthetic.scenes",
    "UnpairedError": ".pairs",
    "boundary_mask": ".label_masks",
    "class_folders": ".labelled",
    "class_mask": ".label_masks",
    "degrade": ".degradations",
    "hold_out": ".labelled",
    "match_folders": ".pairs",
    "open_dataset": ".layouts",
    "pair_folders": ".pairs",
    "synthetic_rig": ".synthetic.rig",
    "SyntheticSequence": ".synthetic.sequence",
    "synthetic_sequence": ".synthetic.sequence",
    "synthetic_scene": ".synthetic.scenes",
}

__all__ = sorted(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy_attributes(__name__, _MODULES)
