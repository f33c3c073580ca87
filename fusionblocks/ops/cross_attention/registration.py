"""The Triton backend of ``cross_attention``: ``torch.library`` operators, their CPU stand-ins and derivative.

The CPU stand-ins are the formulas. They let a graph that was traced for a GPU run elsewhere, and the registration be
tested there; ``cross_attention`` itself takes ``reference`` on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fusionblocks.ops import _triton
from fusionblocks.ops.cross_attention import launch
from fusionblocks.ops.cross_attention.launch import empty_like_rows

# results lie in memory as the query does: a compiler must not lay it out anew in between
STRIDES = (torch.Tag.needs_exact_strides,)
ROWS = 1024  # queries at a time, where the stand-ins hold the weights of all keys


def refuse(tensors: Sequence[Tensor]) -> str | None:
    """Return why the kernels cannot serve a call with these tensors, queries first and values last, or None."""
    reason = _triton.refuse(tensors)
    if reason is not None or not tensors:
        return reason
    width = max(tensors[0].shape[-1], tensors[-1].shape[-1])
    if width > launch.WIDEST:
        return f"a head width of {width} is more than {launch.WIDEST}"
    return None


def cross_attention(query: Tensor, key: Tensor, value: Tensor, scale: float | None = None) -> Tensor:
    """Run the kernels on the arguments of the public function."""
    return forward_op(query, key, value, query.shape[-1] ** -0.5 if scale is None else float(scale))[0]


@torch.library.custom_op("fusionblocks::cross_attention_forward", mutates_args=(), device_types="cuda", tags=STRIDES)
def forward_op(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Return ``softmax(scale * query @ key.T) @ value`` and, to base 2, the logarithm of its partition sums."""
    (out,), lse = launch.forward([query], key, [value], scale)
    return out, lse


@torch.library.custom_op("fusionblocks::cross_attention_backward", mutates_args=(), device_types="cuda", tags=STRIDES)
def backward_op(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and value."""
    (d_query,), d_key, (d_value,) = launch.backward([grad], [query], key, [value], [out], lse, scale)
    return d_query, d_key, d_value


@forward_op.register_kernel("cpu")
def _(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    return plain_forward(query, key, value, scale)


@backward_op.register_kernel("cpu")
def _(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    return plain_backward(grad, query, key, value, out, lse[0], scale)


@forward_op.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    return empty_like_rows(query, value.shape[-1]), empty_lse(query, 1)


@backward_op.register_fake
def _(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(empty_like_rows(x, x.shape[-1]) for x in (query, key, value))  # type: ignore[return-value]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, ctx.scale = inputs
    ctx.save_for_backward(query, key, value, *output)


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return *backward_op(grad, *ctx.saved_tensors, ctx.scale), None


forward_op.register_autograd(_backward, setup_context=_setup)


# formulas


def empty_lse(query: Tensor, streams: int) -> Tensor:
    """Allocate ``(streams, B, heads, Nq)``, in float32 unless the tensors are of float64."""
    dtype = torch.promote_types(query.dtype, torch.float32)
    return torch.empty((streams, *query.shape[:3]), dtype=dtype, device=query.device)


def plain_forward(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Compute one stream's result and ``(1, B, heads, Nq)`` by the formula."""
    out, lse = empty_like_rows(query, value.shape[-1]), empty_lse(query, 1)
    for start in range(0, query.shape[2], ROWS):
        rows = slice(start, start + ROWS)
        logits = scale * query[:, :, rows].to(lse.dtype) @ key.to(lse.dtype).mT
        out[:, :, rows] = (logits.softmax(-1) @ value.to(lse.dtype)).to(out.dtype)
        lse[0, :, :, rows] = logits.logsumexp(-1) / math.log(2)
    return out, lse


def plain_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of one stream's query, key and value by the formula; ``lse`` is ``(B, heads, Nq)``."""
    inputs = (query, key, value)
    grad, query, key, value, out = (x.to(lse.dtype) for x in (grad, query, key, value, out))
    d_query, d_key, d_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
    for start in range(0, query.shape[2], ROWS):
        rows = slice(start, start + ROWS)
        weights = torch.exp2(scale / math.log(2) * query[:, :, rows] @ key.mT - lse[:, :, rows, None])
        delta = (grad[:, :, rows] * out[:, :, rows]).sum(-1, keepdim=True)
        d_logits = scale * weights * (grad[:, :, rows] @ value.mT - delta)
        d_query[:, :, rows] = d_logits @ key
        d_key += d_logits.mT @ query[:, :, rows]
        d_value += weights.mT @ grad[:, :, rows]
    results = zip(inputs, (d_query, d_key, d_value))
    return tuple(empty_like_rows(x, x.shape[-1]).copy_(dx) for x, dx in results)  # type: ignore[return-value]
