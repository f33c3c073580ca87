"""Attention between pixels and tokens in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from fusionblocks.ops.cross_attention.reference import cross_attention


def token_attention(query: Tensor, key: Tensor, value: Tensor, scale: float | None = None) -> Tensor:
    """Compute ``softmax(scale * query @ key.T) @ value``."""
    width, value_width = query.shape[-1], value.shape[-1]
    # So few queries that their weights are at most as large as the keys or the values: two matrix products take these
    # in whatever strides they come, where PyTorch's fused attention would first turn all of them into rows, and on a
    # GPU give all keys to a few of its cores. Narrow dtypes would round the logits.
    # They also differentiate twice, which the fused attention does not.
    few = query.shape[-2] <= max(width, value_width) and query.dtype in (torch.float32, torch.float64)
    rows = key.stride(-1) == value.stride(-1) == 1 and query.device.type == "cpu"
    learns = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
    if few and (learns or not rows):
        factor = width**-0.5 if scale is None else scale
        return (factor * query @ key.mT).softmax(-1) @ value
    return cross_attention(query, key, value, scale)


def one_token(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Compute the same over a single key, whose weight is 1 whatever is asked: its value at every query."""
    # Sums over no columns: exact zeros of the right shape that tie query and key to the result for autograd.
    return value + query[..., :0].sum(-1, keepdim=True) + key[..., :0].sum(-1, keepdim=True)
