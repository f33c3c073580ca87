"""Files of adapters: tensors with the settings that they were trained in."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fusionblocks._loading import read_checkpoint
from fusionblocks._support.files import whole_file


def write_adapters(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> None:
    """Write tensors and settings to a ``.safetensors`` file that is whole or not there.

    Raises:
        ValueError: If the name ends in anything else.
        FileNotFoundError: If its folder does not exist.
    """
    from safetensors.torch import save

    target = Path(path)
    if target.suffix != ".safetensors":
        raise ValueError(f"path must end in .safetensors, got {target.name!r}")
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    data = save(whole, metadata={"settings": json.dumps(dict(settings))})
    with whole_file(target) as temporary:
        temporary.write_bytes(data)


def read_adapters(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the settings of a file of adapters.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or no file of adapters.
    """
    from safetensors import safe_open

    source = Path(path)
    if source.is_file() and source.suffix != ".safetensors":
        raise ValueError(f"{source} is not a file of adapters, which end in .safetensors")
    tensors = read_checkpoint(source)
    with safe_open(source, framework="pt") as file:
        metadata = file.metadata() or {}
    if "settings" not in metadata:
        raise ValueError(f"{source} is not a file of adapters: it says nothing of the settings they were trained in")
    return tensors, json.loads(metadata["settings"])
