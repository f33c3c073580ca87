"""Weights that come with the library: one file a network, its digest pinned in the network's class."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fusionblocks._loading import load_strict, read_checkpoint
from fusionblocks.models.base import FusionModel

MODELS = Path(__file__).parent


def has_packaged_weights(model: FusionModel) -> bool:
    """Whether weights come with the library that were trained in this network's configuration."""
    return model.packaged_file() is not None


def has_random_weights(model: FusionModel) -> bool:
    """Whether ``create_model`` by name alone leaves this network with freshly drawn weights."""
    return next(model.parameters(), None) is not None and not has_packaged_weights(model)


def load_packaged_weights(model: FusionModel) -> None:
    """Load the weights that come with the library, and put the network into evaluation mode.

    Raises:
        ValueError: If there are none for this network in its configuration, or the file is not the one that was
            released.
    """
    if not model.packaged:
        raise ValueError(
            f"no weights of {model.name!r} come with the library: load its authors' with load_official, or your own "
            "with from_pretrained"
        )
    name = model.packaged_file()
    if name is None:
        raise ValueError(
            f"the weights of {model.name!r} that come with the library are of {model.config_class()}, "
            f"got {model.config}: pass pretrained=False to train your own"
        )
    file = MODELS / model.name / name
    state = read_checkpoint(file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if digest != model.packaged[name]:
        raise ValueError(
            f"{file} is not the file that was released: its SHA-256 is {digest}, not {model.packaged[name]}; "
            "install fusionblocks again"
        )
    load_strict(model, state, source=str(file))
    model.eval()
