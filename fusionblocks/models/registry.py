"""Networks by name."""

from __future__ import annotations

import functools
import importlib
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from fusionblocks._support.names import closest
from fusionblocks.models.base import FusionModel
from fusionblocks.models.networks import NETWORKS
from fusionblocks.models.packaged import has_packaged_weights, load_packaged_weights

#: The network that fuses when none is named.
DEFAULT_MODEL = "fusionblocks"
#: The entry points by which other packages add networks: a name, and the import path of a FusionModel class.
ENTRY_POINTS = "fusionblocks.models"


def list_models() -> list[str]:
    """Return the names of all networks, sorted: this library's, and those that other packages add.

    A package adds one by an entry point of the group ``fusionblocks.models``, whose name is the network's and whose
    object is a subclass of :class:`FusionModel`.

    Example:
        >>> from fusionblocks import list_models
        >>> list_models()
        ['fusionblocks', 'laplacian', 'psfusion', 'sgafusion', 'sgdfuse', 'smfnet']
    """
    return sorted({*NETWORKS, *_added(tuple(sys.path))})


@functools.cache
def _added(path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Return the entry points of other packages by name; one that takes a name of ours is left out with a warning."""
    added: dict[str, EntryPoint] = {}
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name in NETWORKS or entry.name in added:
            owner = "this library" if entry.name in NETWORKS else added[entry.name].value
            warnings.warn(
                f"the network {entry.name!r} of {entry.value} is left out: {owner} has that name", stacklevel=3
            )
            continue
        added[entry.name] = entry
    return added


def _of_package(entry: EntryPoint) -> type[FusionModel]:
    """Return the class that another package adds."""
    try:
        network = entry.load()
    except Exception as error:
        raise ValueError(f"the network {entry.name!r} of {entry.value} cannot be imported: {error}") from error
    if not (isinstance(network, type) and issubclass(network, FusionModel)):
        raise ValueError(f"the network {entry.name!r} of {entry.value} is not a subclass of FusionModel")
    return network


def model_class(name: str) -> type[FusionModel]:
    """Return the class of a network.

    Args:
        name: One of :func:`list_models`.

    Raises:
        TypeError: If ``name`` is not a string.
        ValueError: If there is no such network; the message lists the names and the closest match.

    Example:
        >>> from fusionblocks.models import model_class
        >>> model_class("laplacian").__name__
        'Laplacian'
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, the name of a model, got {type(name).__name__}")
    if name not in NETWORKS and name in _added(tuple(sys.path)):
        return _of_package(_added(tuple(sys.path))[name])
    if name not in NETWORKS:
        known = list_models()
        raise ValueError(f"unknown model {name!r}{closest(name.lower(), known)}; known: {', '.join(known)}")
    return getattr(importlib.import_module(f"fusionblocks.models.{name}.network"), NETWORKS[name].cls)


def create_model(
    name: str,
    *,
    guidance: str | Callable[..., Any] | None = None,
    pretrained: bool | None = None,
    **config: Any,
) -> FusionModel:
    """Return a network, with the weights that come with the library if it has some, else with freshly drawn ones.

    Args:
        name: One of :func:`list_models`.
        guidance: What computes the network's further inputs from the pair: ``"clip"`` for ``"sgafusion"``, ``"sam"``
            for ``"sgdfuse"`` (both need their published weights), or a guide of your own, see
            :meth:`FusionModel.attach_guidance`. ``None`` leaves these inputs to the caller.
        pretrained: Whether to load the weights that come with the library: ``"fusionblocks"`` has some, the others'
            are their authors' (:func:`fusionblocks.load_official`). ``None`` loads them where there are any and the
            configuration is theirs.
        **config: Fields of the network's configuration; the defaults are the paper's values.

    Returns:
        The network; in evaluation mode if its weights were loaded.

    Raises:
        ValueError: If there is no such network or guide (the message lists the names and the closest match), or no
            weights come with the network in this configuration.
        TypeError: If a keyword is not a field of the network's configuration (the closest match is offered), or the
            network takes no guidance.

    Example:
        >>> from fusionblocks import create_model
        >>> model = create_model("laplacian", levels=3)
        >>> model.config.levels
        3
    """
    network = model_class(name)
    if isinstance(guidance, str):
        guide_class(network, guidance)  # a wrong name costs nothing yet
    model = network(**config)
    if pretrained or (pretrained is None and has_packaged_weights(model)):
        load_packaged_weights(model)
    attach(model, guidance)
    return model


def attach(model: FusionModel, guidance: str | Callable[..., Any] | None) -> None:
    """Attach a guide to a network, one that is built by its short name or the caller's; ``None`` attaches none."""
    if guidance is not None:
        model.attach_guidance(build_guide(model, guidance) if isinstance(guidance, str) else guidance)


def build_guide(model: FusionModel, guide: str, **options: Any) -> Callable[..., Any]:
    """Return a guide of ``fusionblocks.guidance`` as a network's configuration asks for it.

    Args:
        model: The network that it is to guide.
        guide: Its short name, one of ``model.guides``.
        **options: Arguments of the guide.
    """
    return guide_class(type(model), guide)(**{**model.guide_options(), **options})


def guide_class(network: type[FusionModel], guide: str) -> Callable[..., Any]:
    """Return the class of a network's guide.

    Raises:
        TypeError: If the network takes no guidance.
        ValueError: If the guide is unknown or another network's; the message lists the network's guides.
    """
    if not network.guides:
        raise TypeError(f"{network.name!r} takes no guidance, so no guide can be attached; got guidance={guide!r}")
    if guide not in network.guides:
        owners = [name for name in list_models() if guide in model_class(name).guides]
        known = list(network.guides)
        reason = f" guides {owners[0]!r}" if owners else f" is unknown{closest(guide.lower(), known)}"
        raise ValueError(
            f"guidance={guide!r}{reason}; {network.name!r} takes {', '.join(map(repr, known))} or a callable"
        )
    return getattr(importlib.import_module("fusionblocks.guidance"), network.guides[guide])
