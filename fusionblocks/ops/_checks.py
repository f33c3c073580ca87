"""Checks of operator arguments; each error names the argument, what was expected and what came."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fusionblocks._support.autocast import autocast_enabled

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def check_rank(layout: str, **tensors: Tensor) -> None:
    """Raise unless each tensor is a floating-point tensor of the layout's rank, such as ``(B, heads, C, N)``."""
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a tensor of shape {layout}, got {type(tensor).__name__}")
        if tensor.dtype not in DTYPES:
            raise TypeError(f"{name} must be float64, float32, float16 or bfloat16, got {tensor.dtype}")
        if tensor.ndim != layout.count(",") + 1:
            raise ValueError(f"{name} must have shape {layout}, got {tuple(tensor.shape)}")


def check_same_sizes(dims: dict[str, int], **tensors: Tensor) -> None:
    """Raise unless all tensors agree in the named dimensions, given as ``{"B": 0, ...}``."""
    (first, reference), *others = tensors.items()
    expected = reference.shape
    for name, tensor in others:
        found = tensor.shape
        for dim_name, dim in dims.items():
            if found[dim] != expected[dim]:
                raise ValueError(
                    f"{name} must have {dim_name}={expected[dim]} like {first} of shape {tuple(expected)}, "
                    f"got {name} of shape {tuple(found)}"
                )


def check_same_kind(**tensors: Tensor) -> None:
    """Raise unless all tensors are of one dtype and on one device."""
    (first, reference), *others = tensors.items()
    for name, tensor in others:
        if tensor.device != reference.device:
            raise ValueError(f"{name} must be on the device of {first}, {reference.device}, got {tensor.device}")
        if tensor.dtype != reference.dtype:
            raise TypeError(f"{name} must have the dtype of {first}, {reference.dtype}, got {tensor.dtype}")


def check_scale(scale: float | None) -> None:
    """Raise unless ``scale`` is None or a finite number."""
    if scale is None:
        return
    if isinstance(scale, bool) or not isinstance(scale, (int, float)):
        raise TypeError(f"scale must be a number or None, got {type(scale).__name__}")
    if not math.isfinite(scale):
        raise ValueError(f"scale must be finite, got {scale}")


def cast_for_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the tensors in autocast's dtype where autocast is on, as PyTorch's own attention is cast (not float64)."""
    device = tensors[0].device.type
    if not autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(tensor if tensor.dtype == torch.float64 else tensor.to(dtype) for tensor in tensors)


def check_temperature_kind(temperature: Tensor, query: Tensor) -> None:
    """Raise unless ``temperature`` is on the query's device and of its dtype or float32."""
    if temperature.device != query.device:
        raise ValueError(f"temperature must be on the device of query, {query.device}, got {temperature.device}")
    if temperature.dtype not in (query.dtype, torch.float32):
        raise TypeError(
            f"temperature must be float32 or have the dtype of query, {query.dtype}, got {temperature.dtype}"
        )
