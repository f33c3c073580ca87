"""What every Triton backend asks of a machine and of its tensors; nothing here imports triton."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
OLDEST = 8  # major compute capability; older devices have neither bfloat16 nor TF32
# looked up once: torch.compile cannot trace the search
HAS_TRITON = importlib.util.find_spec("triton") is not None


def refuse(tensors: Sequence[Tensor]) -> str | None:
    """Return why no Triton kernel can serve tensors of one device, none when the question is general, or None."""
    if not HAS_TRITON:
        return "triton is not installed"
    if not tensors:
        return None if interpreting() or torch.cuda.is_available() else "there is no CUDA device"
    first = tensors[0]
    for tensor in tensors:
        if tensor.dtype not in DTYPES:
            return f"{str(tensor.dtype).removeprefix('torch.')} is left to torch"
        if tensor.numel() == 0:
            return "a tensor is empty"
    if first.is_cpu and interpreting():
        return None
    if not first.is_cuda:
        hint = ", which the kernels serve where TRITON_INTERPRET=1" if first.is_cpu else ""
        return f"tensors are on {first.device.type}{hint}"
    if torch.version.hip is not None:
        return "the kernels are written for NVIDIA devices"
    device = torch.cuda.get_device_properties(first.device)  # a constant to torch.compile
    if device.major < OLDEST:
        return f"compute capability {OLDEST}.0 is needed, the device has {device.major}.{device.minor}"
    return None


def interpreting() -> bool:
    """Return whether Triton interprets its kernels, on the CPU, instead of compiling them."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def input_precision() -> str:
    """Return how a kernel multiplies float32: exactly, unless PyTorch's own switches allow TF32 in matrix products.

    Compiled code keeps what it is when the code is compiled: ``torch.compile`` cannot trace how it is read.
    """
    # the one switch that all the others set, and that can be read whichever of them was used
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"


# what ``torch.compiler.assume_constant_result`` does, but that imports the compiler
input_precision._dynamo_marked_constant = True  # type: ignore[attr-defined]
