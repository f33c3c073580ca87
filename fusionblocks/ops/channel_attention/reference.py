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
        logits = cosines(query, key)
        attention = (logits * temperature.to(logits.dtype)).softmax(dim=-1)  # b h c c
        if projection is None:
            return attention.to(value.dtype) @ value
        heads, channels = value.shape[1:3]
        per_head = projection.to(logits.dtype).unflatten(1, (heads, channels)).transpose(0, 1)  # h o c
        matrix = (per_head @ attention).transpose(1, 2).flatten(2)  # b o (h c)
        return matrix.to(value.dtype) @ value.flatten(1, 2)


def cosines(query: Tensor, key: Tensor) -> Tensor:
    """Return ``normalize(query) @ normalize(key).T``, ``(b, h, c, c)``, in float32 (float64 for float64)."""
    if query.dtype == torch.float16:  # sums over thousands of positions exceed float16
        query, key = query.float(), key.float()
        half = True
    else:
        half = False
    gram = query @ key.mT
    exact = torch.float64 if query.dtype == torch.float64 else torch.float32
    return gram.to(exact) / _norms(query, exact, half) / _norms(key, exact, half).mT


def _norms(x: Tensor, dtype: torch.dtype, half: bool) -> Tensor:
    """Return the norm of each channel, ``(b, h, c, 1)``."""
    # on a CPU a sum in another dtype copies its input; that in bfloat16 is kept in float32 too and rounded at its end
    own = x.dtype == torch.bfloat16 and x.device.type == "cpu"
    norms = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=None if own else dtype).to(dtype)
    if half:
        # Of float16 channels only zeros are below EPS. An infinite norm keeps their cosines 0 and makes their
        # gradient 0, since 1 / EPS does not fit into float16.
        return norms.masked_fill(norms < EPS, torch.inf)
    return norms.clamp_min(EPS)
