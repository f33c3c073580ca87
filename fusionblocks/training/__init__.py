"""Training: the parts of the library that learn."""

from __future__ import annotations

from fusionblocks._lazy import lazy_attributes

_MODULES = {
    "class_accuracy": ".guidance",
    "train_classifier": ".guidance",
}

__all__ = sorted(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy_attributes(__name__, _MODULES)
