"""The network that the command line names: one of the library, of a package, or of a file."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from torch import nn

ModelOption = Annotated[
    str | None,
    typer.Option(help="Network: of [bold]fusionblocks models[/], or module:Class, or file.py:Class. [fusionblocks]"),
]
CheckpointOption = Annotated[
    Path | None, typer.Option(help="Weights: a folder or file of this library, the authors', or what wraps them.")
]
SettingsOption = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="An argument of the network; may come again.")
]


def settings_of(settings: list[str]) -> dict[str, Any]:
    """Return the values of ``key=value``, each a piece of YAML."""
    from fusionblocks.training.plain import parse_value

    values = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not key or not equals:
            raise ValueError(f"--set must be KEY=VALUE, such as channels=32, got {setting!r}")
        values[key.strip()] = parse_value(value)
    return values


def is_import(model: str | None) -> bool:
    """Whether a name is an import path, ``package.module:Class`` or ``file.py:Class``."""
    return model is not None and ":" in model


def import_network(model: str, settings: dict[str, Any]) -> nn.Module:
    """Return what the class that ``package.module:Class`` or ``file.py:Class`` names makes of the settings.

    Raises:
        ValueError: If there is no such file, module or class, it is not a module's, or takes no such settings.
    """
    place, _, name = model.rpartition(":")
    try:
        module = _of_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except Exception as error:
        raise ValueError(f"--model {model}: cannot import {place}: {type(error).__name__}: {error}") from error
    cls = getattr(module, name, None)
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        classes = [
            key for key, value in vars(module).items() if inspect.isclass(value) and issubclass(value, nn.Module)
        ]
        raise ValueError(
            f"--model {model}: {place} has no torch.nn.Module {name!r}; it has {', '.join(classes) or 'none'}"
        )
    try:
        return cls(**settings)
    except Exception as error:
        raise ValueError(f"--model {model}: {name} cannot be made with {settings}: {error}") from error


def _of_file(file: Path) -> Any:
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    spec: Any = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def open_network(model: str | None, checkpoint: Path | None, settings: list[str]) -> Any:
    """Return the network that ``--model``, ``--set`` and ``--checkpoint`` describe."""
    from fusionblocks.cli._console import err
    from fusionblocks.models import create_model, load_model, wrap
    from fusionblocks.models.packaged import has_random_weights
    from fusionblocks.models.registry import DEFAULT_MODEL

    values = settings_of(settings)
    if is_import(model):
        module = import_network(str(model), values)
        network = wrap(module) if checkpoint is None else load_model(module, checkpoint)
    elif checkpoint is None:
        network = create_model(model or DEFAULT_MODEL, **values)
    else:
        network = load_model(checkpoint, **values) if model is None else load_model(model, checkpoint, **values)
    if checkpoint is None and (is_import(model) or has_random_weights(network)):
        err.print(f"[yellow]warning:[/] {network.name} runs with random weights: pass --checkpoint", highlight=False)
    return network
