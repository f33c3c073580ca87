"""Pointwise tails, compiled while a CUDA graph is recorded.

A compiled function checks its guards at each call, which costs the host more than the few launches that it saves. In a
recording the host does nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any

import torch
from torch import Tensor

_THREAD = threading.local()


@contextmanager
def fusing(on: bool = True) -> Iterator[None]:
    """Compile the pointwise tails that run in the block, in this thread."""
    before = getattr(_THREAD, "on", False)
    _THREAD.on = on
    try:
        yield
    finally:
        _THREAD.on = before


def fused(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Decorate a function of tensors that is pointwise, but for broadcasting and concatenation."""

    @wraps(function)
    def run(*tensors: Tensor) -> Tensor:
        if not getattr(_THREAD, "on", False) or torch.compiler.is_compiling():
            return function(*tensors)
        return compiled(function)(*tensors)

    return run


@cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function for any sizes."""
    return torch.compile(function, dynamic=True)


@fused
def gated_merge(visible: Tensor, infrared: Tensor, scale: Tensor, logits: Tensor, pooled: Tensor) -> Tensor:
    """Mix two recalibrated maps ``(B, C, H, W)``: ``sigmoid(logits * pooled)`` of the visible one.

    ``scale`` is ``(B, 2 C, 1, 1)``, that of the visible map first; ``pooled`` is ``(B, C, 1, 1)``.
    """
    of_visible, of_infrared = scale.chunk(2, dim=1)
    return torch.lerp(infrared * of_infrared, visible * of_visible, torch.sigmoid(logits * pooled))


@fused
def recalibrated(visible: Tensor, infrared: Tensor, scale: Tensor) -> Tensor:
    """Return both maps side by side, ``(B, 2 C, H, W)``, each channel scaled."""
    return torch.cat([visible, infrared], dim=1) * scale


@fused
def modulated(x: Tensor, mean: Tensor, scale: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """Return ``(x - mean) * scale * (1 + sigmoid(gamma)) + beta`` in the dtype of ``beta``.

    The difference from the mean may be small: it is taken in the dtype of ``scale``, which is not bfloat16.
    """
    normalized = (x.to(scale.dtype) - mean) * scale
    return torch.addcmul(beta.to(scale.dtype), normalized, 1 + torch.sigmoid(gamma)).to(beta.dtype)


@fused
def gated(x: Tensor, logits: Tensor, pooled: Tensor) -> Tensor:
    """Return ``x * sigmoid(logits * pooled)``."""
    return x * torch.sigmoid(logits * pooled)
