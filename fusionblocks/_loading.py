"""Reading checkpoint files safely, and loading them strictly with every problem named."""

from __future__ import annotations

import contextlib
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class NumpyValue:
    """Stands for a NumPy number or array in a checkpoint: a score that training noted beside the weights.

    NumPy's own unpickling is not made for files of unknown origin, so nothing of it runs and the value is dropped.
    """

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


_NUMPY: list[Any] = [
    (NumpyValue, name)
    for name in (
        "numpy.dtype",
        "numpy.ndarray",
        "numpy.core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray._reconstruct",  # since NumPy 2
        "numpy._core.multiarray.scalar",
    )
]


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
        raise FileNotFoundError(f"checkpoint {file} {'is a folder, not a file' if file.is_dir() else 'does not exist'}")
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(file)
        except SafetensorError as error:
            raise ValueError(f"checkpoint {file} is damaged or no safetensors file: {error}") from error
    try:
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(_NUMPY):
            return torch.load(file, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except Exception as error:  # damaged bytes raise almost anything
        message = " ".join(str(error).split())
        reason = f"{type(error).__name__}: {message.partition('. ')[0]}".rstrip(": ")
        code = _code_in(file, message)
    # outside the handler: torch's own message advises to load the file unsafely
    if code:
        raise ValueError(
            f"checkpoint {file} is a pickle with code in it and was refused, nothing of it ran ({code}); "
            "ask its owner for the state dict alone: torch.save(model.state_dict(), file)"
        )
    raise ValueError(f"checkpoint {file} is damaged or no checkpoint ({reason})")


def _code_in(file: Path, message: str) -> str | None:
    """Return what a file that torch refused with ``message`` would have run, or None if it holds no code."""
    if "TorchScript" in message:
        return "a TorchScript program"
    blocked = re.search(r"GLOBAL ([\w.]*\w)", message)
    if zipfile.is_zipfile(file):
        return blocked[1] if blocked else None
    # plain pickles, maybe cut off, maybe of a protocol that torch does not read: list their instructions, run none
    imports: list[str | None] = []
    with contextlib.suppress(Exception), file.open("rb") as stream, warnings.catch_warnings(action="ignore"):
        while True:
            whole = list(pickletools.genops(stream))
            imports += [name for code, name, _ in whole if code.name in ("GLOBAL", "INST", "STACK_GLOBAL")]
    if not imports or not (blocked or "Unsupported operand" in message):
        return None
    return blocked[1] if blocked else (imports[0] or "a pickled object")


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
