"""Reading checkpoint files safely, and loading them strictly with every problem named."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def read_checkpoint(file: str | Path) -> Any:
    """Return what a checkpoint file holds, reading tensors and plain containers only.

    A pickle that holds code (a whole pickled model, or something worse) is refused and never run.

    Args:
        file: A ``.safetensors`` file, or a file written by ``torch.save``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, or is a pickle with code in it.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"checkpoint {file} does not exist")
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(file)
        except SafetensorError as error:
            raise ValueError(f"checkpoint {file} is damaged or no safetensors file: {error}") from error
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" in str(error) or "Unsupported" in str(error):
            reason = str(error).strip().splitlines()[-1] if "GLOBAL" not in str(error) else _blocked_global(str(error))
            raise ValueError(
                f"checkpoint {file} is a pickle with code in it and was refused, nothing of it ran ({reason}); "
                "ask its owner for the state dict alone: torch.save(model.state_dict(), file)"
            ) from error
        raise ValueError(f"checkpoint {file} is damaged or no checkpoint: {error}") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise ValueError(f"checkpoint {file} is damaged or no checkpoint: {error}") from error


def _blocked_global(message: str) -> str:
    """Return the part of torch's message that names the class or function it blocked."""
    start = message.index("GLOBAL")
    return message[start:].split(" was not", 1)[0].split("\n", 1)[0]


def load_strict(model: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Load ``state`` into ``model``, refusing any missing, surplus or misshapen key by name.

    Raises:
        ValueError: If the keys or shapes differ; nothing of the model has changed then.
    """
    own = model.state_dict()
    missing = [key for key in own if key not in state]
    surplus = [key for key in state if key not in own]
    misshapen = [
        f"{key}: expected {tuple(own[key].shape)}, got {tuple(value.shape)}"
        for key, value in state.items()
        if key in own and own[key].shape != value.shape
    ]
    problems = [
        f"{len(keys)} {kind}: {_some(keys)}"
        for kind, keys in (("missing", missing), ("surplus", surplus), ("of another shape", misshapen))
        if keys
    ]
    if problems:
        raise ValueError(f"{source} does not fit {type(model).__name__}: {'; '.join(problems)}")
    model.load_state_dict(dict(state))


def _some(names: list[str], limit: int = 8) -> str:
    """Return up to ``limit`` names in a line, and how many more there are."""
    rest = f", and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
