"""Channel attention in plain PyTorch.

Legend: b batch, h heads, c channels of a head, n positions, o output channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fusionblocks._support.autocast import no_autocast

EPS = 1e-12  # the smallest norm, that of torch.nn.functional.normalize


def channel_attention(
    query: Tensor, key: Tensor, value: Tensor, temperature: Tensor, projection: Tensor | None = None
) -> Tensor:
    """Compute ``softmax(temperature * cosines(query, key)) @ value``, the projection folded into the matrix."""
    # The arguments have their final dtypes; autocast would round the float32 logits of float16 input again.
    with no_autocast(query.device.type):
        attention = weights(cosines(query, key), temperature)
        if projection is None:
            return attention.to(value.dtype) @ value
        matrix = (split_projection(projection, attention.dtype, value.shape[1]) @ attention).transpose(1, 2).flatten(2)
        return matrix.to(value.dtype) @ value.flatten(1, 2)  # b o (h c) by b (h c) n


def cosines(query: Tensor, key: Tensor) -> Tensor:
    """Return ``normalize(query) @ normalize(key).T``, ``(b, h, c, c)``, in float32 (float64 for float64)."""
    of_query, of_key = norms(query), norms(key)
    if query.dtype == torch.float16:  # sums over thousands of positions exceed float16
        query, key = query.float(), key.float()
    return (query @ key.mT).to(of_query.dtype) / of_query / of_key.mT


def weights(cosines: Tensor, temperature: Tensor) -> Tensor:
    """Return how much of each key channel a query channel takes, ``(b, h, c, c)``."""
    return (cosines * temperature.to(cosines.dtype)).softmax(dim=-1)


def norms(x: Tensor) -> Tensor:
    """Return the norm of each channel, ``(b, h, c, 1)``, in float32 (float64 for float64)."""
    exact = torch.float64 if x.dtype == torch.float64 else torch.float32
    # on a CPU a sum in another dtype copies its input; that in bfloat16 is kept in float32 too and rounded at its end
    own = x.dtype == torch.bfloat16 and x.device.type == "cpu"
    norms = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=None if own else exact).to(exact)
    if x.dtype == torch.float16:
        # Of float16 channels only zeros are below EPS. An infinite norm keeps their cosines 0 and makes their
        # gradient 0, since 1 / EPS does not fit into float16.
        return norms.masked_fill(norms < EPS, torch.inf)
    return norms.clamp_min(EPS)


def split_projection(projection: Tensor, dtype: torch.dtype, heads: int) -> Tensor:
    """Return the weight of each head ``(h, o, c)``."""
    return projection.to(dtype).unflatten(1, (heads, -1)).transpose(0, 1)
