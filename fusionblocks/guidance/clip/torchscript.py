"""Weights of a TorchScript archive, read as data: none of its code is compiled or run."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

STORAGES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
}


def is_torchscript(file: Path) -> bool:
    """Return whether a file is an archive that ``torch.jit.save`` wrote."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(file: Path) -> dict[str, Tensor]:
    """Return the parameters and buffers of an archive by their dotted names.

    Raises:
        ValueError: If it is damaged, or its data asks for anything but tensors and containers of them.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            (data,) = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
            with archive.open(data) as stream:
                root = _Reader(stream, lambda key: archive.read(f"{data.removesuffix('.pkl')}/{key}")).load()
    except pickle.UnpicklingError as error:
        raise ValueError(f"{file} was refused, nothing of it ran: {error}") from error
    except Exception as error:  # damaged bytes raise almost anything
        raise ValueError(f"{file} is a damaged TorchScript archive ({type(error).__name__})") from error
    return dict(_tensors(root, ""))


class _Module:
    """Stands for a module of the archive: what it holds, by name."""

    held: dict[str, Any]

    def __setstate__(self, held: dict[str, Any]) -> None:
        self.held = held


class _Reader(pickle.Unpickler):
    """Reads modules, tensors and numbers; any other name in the file is refused."""

    def __init__(self, stream: Any, read: Callable[[str], bytes]) -> None:
        super().__init__(stream)
        self._read = read

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "__torch__":
            return _Module
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if module == "torch.jit._pickle" and name in ("build_boollist", "build_doublelist", "build_intlist"):
            return list
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, saved_id: Any) -> Tensor:
        kind, dtype, key, *_ = saved_id
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"it asks for {kind!r}")
        content = bytearray(self._read(str(key)))
        return torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return storage.as_strided(size, stride, offset).clone()


def _tensors(module: _Module, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in module.held.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, _Module) and hasattr(value, "held"):
            yield from _tensors(value, f"{prefix}{name}.")
