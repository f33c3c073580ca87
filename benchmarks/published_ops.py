"""The published formulation of the operators: normalised copies, whole attention matrices, no projection folded.

Written anew from the formulas, in the steps in which the papers' code takes them: the yardstick of ``benchmarks.ops``
and, inside the networks, of ``benchmarks.networks``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor


def channel_attention(
    query: Tensor, key: Tensor, value: Tensor, temperature: Tensor, projection: Tensor | None = None
) -> Tensor:
    """Normalise both, multiply, soften, apply; then the 1x1 convolution, if there is one."""
    query, key = F.normalize(query, dim=-1), F.normalize(key, dim=-1)
    attention = ((query @ key.mT) * temperature).softmax(dim=-1)  # B heads C C
    attended = attention @ value
    return attended if projection is None else F.conv1d(attended.flatten(1, 2), projection[..., None])


def cross_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Make the whole matrix of positions by positions, soften it, apply it."""
    attention = (scale * (query @ key.mT)).softmax(dim=-1)  # B heads Nq Nk
    return attention @ value


def dual_cross_attention(
    query_a: Tensor, query_b: Tensor, key: Tensor, value_a: Tensor, value_b: Tensor, scale: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Make one whole matrix a stream."""
    return cross_attention(query_a, key, value_a, scale), cross_attention(query_b, key, value_b, scale)


def clip_query_attention(
    image: Tensor, tokens: Tensor, attention: Callable[[tuple[Tensor, ...]], tuple[Tensor, Tensor]]
) -> Tensor:
    """Let the pixels ``(B, C, N)`` ask tokens ``(B, T, C)`` through multi-head attention, and add the answer.

    ``attention`` is ``nn.MultiheadAttention``, called with the tuple of query, key and value.
    """
    pixels, tokens = image.permute(2, 0, 1), tokens.transpose(0, 1)  # (N, B, C), (T, B, C)
    answer, _ = attention((pixels, tokens, tokens))
    return (answer + pixels).permute(1, 2, 0)
