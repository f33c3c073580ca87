"""Whether a file gives what its network gives."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor

from fusionblocks.deployment.graph import Deployable


def psnr(found: Tensor, expected: Tensor) -> float:
    """Return how close a picture in [0, 1] is to another, in decibels; infinite where they are equal.

    Example:
        >>> import torch
        >>> from fusionblocks.deployment import psnr
        >>> round(psnr(torch.full((2, 2), 0.51), torch.full((2, 2), 0.5)))
        40
    """
    error = (found.detach().double() - expected.detach().double()).square().mean()
    return float("inf") if error == 0 else float(-10 * error.log10())


def run_file(path: str | os.PathLike[str], inputs: Sequence[Tensor]) -> Tensor:
    """Return the output ``fused`` of a file that :func:`fusionblocks.export` wrote.

    Args:
        path: ``.onnx``, run by onnxruntime on the CPU, or ``.pt2``, a program or compiled code.
        inputs: The tensors in the order of the file's inputs.

    Raises:
        ImportError: If onnxruntime is needed and missing.
    """
    if Path(path).suffix == ".pt2":
        with zipfile.ZipFile(path) as archive:
            is_compiled = any("/data/aotinductor/" in name for name in archive.namelist())
        if is_compiled:
            return torch._inductor.aoti_load_package(str(path))(*inputs)["fused"]
        return torch.export.load(path).module()(*inputs)["fused"]
    try:
        runtime = import_module("onnxruntime")
    except ImportError as error:
        raise ImportError('onnxruntime is not installed: pip install "fusionblocks[export]"') from error
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = {entry.name: x.cpu().numpy() for entry, x in zip(session.get_inputs(), inputs, strict=True)}
    return torch.from_numpy(session.run(["fused"], given)[0])


@torch.no_grad()
def verify(path: str | os.PathLike[str], graph: Deployable, inputs: Sequence[Tensor]) -> float:
    """Return how close a file's picture is to the network's own, in decibels.

    Args:
        path: The file.
        graph: The network in its own precision, with the colour that the file has.
        inputs: A pair, and what else the network takes.

    Raises:
        ImportError: If onnxruntime is needed and missing.
    """
    return psnr(run_file(path, inputs), graph(*inputs)["fused"])
