"""What the kernels of all operators share and can be known without importing triton."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import torch
from torch import Tensor

INSTALLED = importlib.util.find_spec("triton") is not None
OLDEST = (8, 0)  # compute capability; older devices have neither bfloat16 nor TF32


def why_not(tensors: Sequence[Tensor]) -> str | None:
    """Say why no Triton kernel can serve these tensors, or with none given, why none could here; None if it could."""
    if not INSTALLED:
        return "triton is not installed"
    if not tensors:
        return None if torch.cuda.is_available() else "no CUDA device is available"
    for tensor in tensors:
        if tensor.device.type != "cuda":
            return f"tensors are on {tensor.device.type}"
        if tensor.dtype == torch.float64:
            return "float64 is left to torch"
        if tensor.numel() == 0:
            return "a tensor is empty"
    if torch.version.hip is not None:
        return "the kernels are written for NVIDIA devices"
    capability = _capability(tensors[0].device.index or 0)
    if capability < OLDEST:
        return f"compute capability {OLDEST[0]}.{OLDEST[1]} is needed, the device has {capability[0]}.{capability[1]}"
    return None


def input_precision(dtype: torch.dtype) -> str:
    """Return ``tl.dot``'s precision: TF32 where PyTorch's own switch allows it, else three TF32 products.

    Those three reach float32's accuracy up to a small factor, and on tensor cores, which "ieee" does not use.
    """
    if dtype != torch.float32:
        return "ieee"  # of float16 and bfloat16 the products are exact in any case
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "tf32x3"


@torch.compiler.assume_constant_result
def _capability(device: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)
