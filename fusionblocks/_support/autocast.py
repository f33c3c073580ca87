"""The state of autocast, read in a way that every supported ``torch.compile`` can trace."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

# Asked about these, ``torch.is_autocast_enabled`` raises. A constant, since ``torch.amp.is_autocast_available`` is what
# PyTorch 2.11 cannot trace.
WITHOUT_AUTOCAST = frozenset({"lazy", "meta", "vulkan"})


def autocast_enabled(device: str) -> bool:
    """Return whether autocast is on for a type of device."""
    return device not in WITHOUT_AUTOCAST and torch.is_autocast_enabled(device)


def no_autocast(device: str) -> AbstractContextManager[object]:
    """Keep autocast, where it is on for a type of device, out of what follows."""
    return torch.autocast(device, enabled=False) if autocast_enabled(device) else nullcontext()
