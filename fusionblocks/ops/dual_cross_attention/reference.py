"""Two attentions with a shared key in plain PyTorch: one after the other, or as heads of one."""

from __future__ import annotations

import torch
from torch import Tensor

from fusionblocks.ops.cross_attention.reference import cross_attention


def dual_cross_attention(
    query_a: Tensor, query_b: Tensor, key: Tensor, value_a: Tensor, value_b: Tensor, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """Compute one attention per stream over the same key."""
    return cross_attention(query_a, key, value_a, scale), cross_attention(query_b, key, value_b, scale)


def both_at_once(
    query_a: Tensor, query_b: Tensor, key: Tensor, value_a: Tensor, value_b: Tensor, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """Compute the same as one attention of twice the heads, which fills a GPU that one stream leaves half idle."""
    query, value = torch.cat([query_a, query_b], dim=1), torch.cat([value_a, value_b], dim=1)
    out_a, out_b = cross_attention(query, torch.cat([key, key], dim=1), value, scale).chunk(2, dim=1)
    return out_a, out_b
