"""Results of slow networks on disk, found again by the content of what went in."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from safetensors import SafetensorError
from torch import Tensor

from fusionblocks._support.files import whole_file

SUFFIX = ".zip"
MEMBER = "arrays.safetensors"
# a temporary file this old was left by a process that has ended
STALE_SECONDS = 3600.0


def content_key(*arrays: Tensor | np.ndarray, **settings: Any) -> str:
    """Return a name for arrays and settings that no other content shares (SHA-256, 64 hexadecimal digits).

    A tensor and an array of equal dtype, shape and values have the same key; the order of the settings is nothing to
    it. ``settings`` are what JSON can write: strings, numbers, booleans, None, lists and dicts of these.

    Raises:
        TypeError: If an argument is not an array, or a setting is not what JSON can write.
    """
    digest = hashlib.sha256()
    for array in arrays:
        dtype, shape, data = _content(array)
        header = f"{dtype} {shape}\n"  # dtype and shape tell where the bytes end
        digest.update(header.encode())
        digest.update(data)
    digest.update(b"settings\n" + json.dumps(settings, sort_keys=True).encode())
    return digest.hexdigest()


def _content(array: Tensor | np.ndarray) -> tuple[str, list[int], memoryview]:
    if isinstance(array, Tensor):
        flat = array.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        return str(array.dtype).removeprefix("torch."), list(array.shape), flat.numpy().data
    if not isinstance(array, np.ndarray) or array.dtype.hasobject:
        raise TypeError(f"content_key takes tensors and arrays of numbers, got {type(array).__name__}")
    return str(array.dtype), list(array.shape), np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _read(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an entry; damaged bytes raise what zipfile, zlib and safetensors raise.

    An entry is a safetensors file within a zip archive, whose checksum is tested on the way. NumPy's ``.npz`` would be
    read by :mod:`ast`, which fails in Python before 3.11.9 when two threads read at once.
    """
    with zipfile.ZipFile(path) as archive:
        return safetensors.numpy.load(archive.read(MEMBER))


class DiskCache:
    """A folder of named sets of arrays; an entry is whole or absent, whoever writes, reads or dies meanwhile.

    An entry is written to a temporary file in the folder, brought to the disk and then moved to its name, which the
    system does at once or not at all. Any number of processes may share a folder.

    Args:
        folder: Where the entries lie; made if it does not exist.

    Raises:
        ValueError: If ``folder`` is a file.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"cache must be a folder, got the file {folder}")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._sweep()

    def get(self, key: str) -> dict[str, np.ndarray] | None:
        """Return the arrays under ``key``, or None; a damaged entry is deleted and counts as none."""
        path = self._path(key)
        try:
            return _read(path)
        except FileNotFoundError:
            return None
        except (EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError, SafetensorError):
            path.unlink(missing_ok=True)
            return None

    def put(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write arrays under ``key``, in place of what was there."""
        path = self._path(key)
        for name, array in arrays.items():
            if not isinstance(array, np.ndarray) or array.dtype.hasobject:
                raise TypeError(f"{name} must be an array of numbers, got {type(array).__name__}")
        content = safetensors.numpy.save({name: np.asarray(array, order="C") for name, array in arrays.items()})
        with whole_file(path) as temporary, zipfile.ZipFile(temporary, "x", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(MEMBER, content)

    def _path(self, key: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", key):
            raise ValueError(f"key must be letters, digits, '_', '.' and '-', got {key!r}")
        return self.folder / f"{key}{SUFFIX}"

    def _sweep(self) -> None:
        """Delete what writers that were killed left behind."""
        for temporary in self.folder.glob(".*.tmp"):
            try:
                if time.time() - temporary.stat().st_mtime > STALE_SECONDS:
                    temporary.unlink()
            except FileNotFoundError:  # another process was faster
                continue


class Fingerprint:
    """The weights of a frozen network as a short string, hashed anew when one was replaced or changed in place.

    Hashing takes a second or so for a large network, and watching the weights next to nothing. A change behind
    autograd's back (``weight.data.add_(1)``) goes unseen: what trains is hashed by itself, each time.
    """

    def __init__(self) -> None:
        self._seen: list[tuple[Tensor, tuple]] = []
        self._digest = ""

    def __call__(self, weights: Mapping[str, Tensor]) -> str:
        """Return the fingerprint of named weights."""
        now = [(weight, _state_of(weight)) for _, weight in sorted(weights.items())]
        same = len(now) == len(self._seen) and all(a is b and s == t for (a, s), (b, t) in zip(now, self._seen))
        if not same or not self._digest:
            self._digest = content_key(*(weight for weight, _ in now), names=sorted(weights))
            self._seen = now  # the tensors are held, so that none of another network takes the place of one
        return self._digest


def _state_of(weight: Tensor) -> tuple:
    version = None if weight.is_inference() else weight._version
    return version, weight.data_ptr(), weight.dtype, weight.device
