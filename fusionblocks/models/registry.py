"""Networks by name."""

from __future__ import annotations

import importlib
from typing import Any

from fusionblocks.models.base import FusionModel, closest

_NETWORKS = {
    "laplacian": ("fusionblocks.models.laplacian", "Laplacian"),
    "psfusion": ("fusionblocks.models.psfusion", "PSFusion"),
    "sgafusion": ("fusionblocks.models.sgafusion", "SGAFusion"),
    "sgdfuse": ("fusionblocks.models.sgdfuse", "SGDFuse"),
    "smfnet": ("fusionblocks.models.smfnet", "SMFNet"),
}


def list_models() -> list[str]:
    """Return the names of all networks, sorted.

    Example:
        >>> from fusionblocks import list_models
        >>> list_models()
        ['laplacian', 'psfusion', 'sgafusion', 'sgdfuse', 'smfnet']
    """
    return sorted(_NETWORKS)


def model_class(name: str) -> type[FusionModel]:
    """Return the class of a network.

    Args:
        name: One of :func:`list_models`.

    Raises:
        TypeError: If ``name`` is no string.
        ValueError: If there is no such network; the message lists the names and the closest match.

    Example:
        >>> from fusionblocks.models import model_class
        >>> model_class("laplacian").__name__
        'Laplacian'
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, the name of a model, got {type(name).__name__}")
    if name not in _NETWORKS:
        known = list_models()
        raise ValueError(f"unknown model {name!r}{closest(name.lower(), known)}; known: {', '.join(known)}")
    module, cls = _NETWORKS[name]
    return getattr(importlib.import_module(module), cls)


def create_model(name: str, **config: Any) -> FusionModel:
    """Return a network with freshly initialised weights.

    Args:
        name: One of :func:`list_models`.
        **config: Fields of the network's configuration; the defaults are the paper's values.

    Raises:
        ValueError: If there is no such network; the message lists the names and the closest match.
        TypeError: If a keyword is no field of the network's configuration; the closest match is offered.

    Example:
        >>> from fusionblocks import create_model
        >>> model = create_model("laplacian", levels=3)
        >>> model.config.levels
        3
    """
    return model_class(name)(**config)
