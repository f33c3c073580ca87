"""Training: the engine, the papers' recipes, and the parts of guidance that learn."""

from __future__ import annotations

from fusionblocks._lazy import lazy_attributes

_MODULES = {
    "Objective": ".objectives",
    "OptimizerRecipe": ".recipe",
    "PhaseRecipe": ".recipe",
    "Recipe": ".recipe",
    "ScheduleRecipe": ".recipe",
    "ValidationRecipe": ".recipe",
    "WithMasks": ".mask_files",
    "class_accuracy": ".guidance",
    "list_recipes": ".recipe",
    "load_recipe": ".recipe",
    "read_log": ".journal",
    "train": ".run",
    "train_classifier": ".guidance",
}

__all__ = sorted(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy_attributes(__name__, _MODULES)
