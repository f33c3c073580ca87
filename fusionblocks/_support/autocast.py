"""The state of autocast, read in a way that every supported ``torch.compile`` can trace."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

# Asked about these, ``torch.is_autocast_enabled`` raises. A constant, since ``torch.amp.is_autocast_available`` is what
# PyTorch 2.11 cannot trace.
WITHOUT_AUTOCAST = frozenset({"lazy", "meta", "vulkan"})


def autocast_enabled(device: str) -> bool:
    """Return whether autocast is on for a type of device."""
    return device not in WITHOUT_AUTOCAST and torch.is_autocast_enabled(device)


def no_autocast(device: str) -> AbstractContextManager[object]:
    """Keep autocast, where it is on for a type of device, out of what follows."""
    return torch.autocast(device, enabled=False) if autocast_enabled(device) else nullcontext()


def cast_for_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the tensors in autocast's dtype where autocast is on, as PyTorch's own attention is cast (not float64)."""
    device = tensors[0].device.type
    if not autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(tensor if tensor.dtype == torch.float64 else tensor.to(dtype) for tensor in tensors)
