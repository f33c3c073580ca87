"""Two attentions with a shared key in plain PyTorch."""

from __future__ import annotations

from torch import Tensor

from fusionblocks.ops.cross_attention.reference import cross_attention


def dual_cross_attention(
    query_a: Tensor, query_b: Tensor, key: Tensor, value_a: Tensor, value_b: Tensor, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """Compute one attention per stream over the same key."""
    return cross_attention(query_a, key, value_a, scale), cross_attention(query_b, key, value_b, scale)
