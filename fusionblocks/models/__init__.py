"""Reference networks, each a short paragraph of blocks, with registry, saving and published-checkpoint loading."""

from __future__ import annotations

from fusionblocks._lazy import lazy_attributes
from fusionblocks.models.networks import public_names

_MODULES = {
    **public_names(),
    "FusionModel": ".base",
    "FusionOutput": ".base",
    "fusion_output": ".base",
    "WrappedConfig": ".wrapping",
    "WrappedModel": ".wrapping",
    "as_network": ".wrapping",
    "create_model": ".registry",
    "inner_model": ".wrapping",
    "list_models": ".registry",
    "load_model": ".loading",
    "load_official": ".official",
    "model_class": ".registry",
    "swap": ".swapping",
    "visible_of": ".wrapping",
    "wrap": ".wrapping",
}

__all__ = sorted(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy_attributes(__name__, _MODULES)
