"""Attention between positions in plain PyTorch, on its fused ``scaled_dot_product_attention``."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = 1024  # queries at a time, where the logits of all keys are held


def cross_attention(query: Tensor, key: Tensor, value: Tensor, scale: float | None = None) -> Tensor:
    """Compute ``softmax(scale * query @ key.T) @ value``."""
    width, value_width = query.shape[-1], value.shape[-1]
    if scale is None:
        scale = width**-0.5
    # PyTorch's fused attention serves rows that lie together, query and value of one width; for anything else it
    # silently computes the whole Nq x Nk matrix. Zero columns change neither the products nor the result.
    common = max(width, value_width)
    query, key, value = (_rows(x, common) for x in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, scale=scale)[..., :value_width]


def _rows(x: Tensor, width: int) -> Tensor:
    """Return ``x`` with contiguous rows of the given width; a copy only where it is needed."""
    if x.shape[-1] < width:
        x = F.pad(x, (0, width - x.shape[-1]))
    # clone, since contiguous() leaves the strides of rows with a single element as they are
    return x if x.stride(-1) == 1 else x.clone(memory_format=torch.contiguous_format)


def partition(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """Return ``log2 of sum over keys of exp(scale * query @ key.T)``, ``(1, B, heads, Nq)``, as the kernels keep it."""
    exact = torch.promote_types(query.dtype, torch.float32)
    parts = ((scale * rows.to(exact) @ key.to(exact).mT).logsumexp(-1) for rows in query.split(ROWS, dim=2))
    return torch.cat(list(parts), dim=2)[None] / math.log(2)
