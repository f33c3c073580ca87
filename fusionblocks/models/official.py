"""Loading the checkpoints that the networks' authors published."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fusionblocks._loading import load_strict, read_checkpoint
from fusionblocks.models.base import FusionModel
from fusionblocks.models.networks import NETWORKS
from fusionblocks.models.registry import attach, list_models, model_class


def load_official(
    name: str,
    checkpoint: str | Path | Mapping[str, Any],
    *,
    guidance: str | Callable[..., Any] | None = None,
    **config: Any,
) -> FusionModel:
    """Return a network with the weights of its authors' checkpoint, in evaluation mode.

    Loading is strict: apart from the keys that the authors' code defines and never uses (each network's
    documentation lists them), any missing or unexpected key is refused by name. Files are read with
    ``weights_only``: a pickle with code in it is refused and never run. Where authors released weights for some of
    the network's parts alone, these are loaded just as strictly, and a ``UserWarning`` names the others.

    Args:
        name: One of :func:`fusionblocks.list_models`.
        checkpoint: The authors' file, or what ``torch.load`` returned for it.
        guidance: What computes the network's further inputs, see :func:`fusionblocks.create_model`.
        **config: Fields of the network's configuration, for a checkpoint of other widths.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the network or the guide is unknown, the network has no published checkpoint layout, the file
            is damaged or holds code, it is another network's checkpoint, or its keys or shapes do not fit.
        TypeError: If ``checkpoint`` is neither a path nor a dict, or a keyword is not a field of the configuration.

    Example:
        >>> from fusionblocks import load_official
        >>> model = load_official("psfusion", "best_model.pth")  # doctest: +SKIP
    """
    model = model_class(name)(**config)
    attach(model, guidance)
    layout = layout_of(name)
    if layout is None:
        raise ValueError(f"{name!r} has no published checkpoint")
    if isinstance(checkpoint, str | Path):
        source, raw = str(checkpoint), read_checkpoint(checkpoint)
    elif isinstance(checkpoint, Mapping):
        source, raw = "the checkpoint", checkpoint
    else:
        raise TypeError(f"checkpoint must be a path or a dict, got {type(checkpoint).__name__}")
    state = layout.unwrap(raw) if isinstance(raw, Mapping) else None
    if state is None:
        raise ValueError(f"{source} is not a checkpoint of {name!r}{_recognised(raw, name)}")
    released = layout.convert(state)
    untrained = _unreleased(model, layout)
    load_strict(model, {**untrained, **released}, source=source)
    if untrained:
        parts = sorted({key.partition(".")[0] for key in untrained})
        warnings.warn(
            f"the authors of {name!r} released weights of {', '.join(layout.PARTS)} alone: {', '.join(parts)} of this "
            "network stay at their random initial values, and it must be trained before it fuses",
            stacklevel=2,
        )
    return model.eval()


def _unreleased(model: FusionModel, layout: Any) -> dict[str, Tensor]:
    """Return the initial weights of the parts that the authors' file does not hold (see ``published``)."""
    parts = getattr(layout, "PARTS", None)
    if parts is None:
        return {}
    return {key: value for key, value in model.state_dict().items() if key.partition(".")[0] not in parts}


def layout_of(name: str) -> Any:
    """Return the module ``checkpoint`` of a network's folder, None if its authors published none."""
    if name not in NETWORKS:
        return None
    module = f"fusionblocks.models.{name}.checkpoint"
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        return None


def _recognised(raw: object, name: str) -> str:
    """Return a hint that names the network whose checkpoint ``raw`` is, if it is one that we know."""
    for other in list_models():
        layout = layout_of(other)
        if other != name and layout is not None and isinstance(raw, Mapping) and layout.unwrap(raw) is not None:
            return f": it looks like one of {other!r}"
    if isinstance(raw, Mapping):
        return f": its entries are {', '.join(map(str, list(raw)[:6]))}"
    return f": it holds a {type(raw).__name__}"
