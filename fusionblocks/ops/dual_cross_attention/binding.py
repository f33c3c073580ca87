"""The kernels of ``cross_attention`` as operators of PyTorch for two streams, both in one launch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fusionblocks.ops import _library
from fusionblocks.ops.cross_attention.binding import (
    empty_like_rows,
    empty_lse,
    launch_gradients,
    launch_streams,
    refuse,
)
from fusionblocks.ops.cross_attention.reference import partition
from fusionblocks.ops.dual_cross_attention import reference

__all__ = ["backward_op", "dual_cross_attention", "forward_op", "refuse"]

Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def dual_cross_attention(
    query_a: Tensor, query_b: Tensor, key: Tensor, value_a: Tensor, value_b: Tensor, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """Run the kernels on the arguments of the public function; differentiable once."""
    factor = key.shape[-1] ** -0.5 if scale is None else float(scale)
    out_a, out_b, _ = forward_op(query_a, query_b, key, value_a, value_b, factor)
    return out_a, out_b


# launches


def launch_forward(
    query_a: Tensor, query_b: Tensor, key: Tensor, value_a: Tensor, value_b: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the results of both streams and the logarithms of their partition sums."""
    (out_a, out_b), lse = launch_streams([query_a, query_b], key, [value_a, value_b], scale)
    return out_a, out_b, lse


def launch_backward(
    grad_a: Tensor, grad_b: Tensor, query_a: Tensor, query_b: Tensor, key: Tensor, value_a: Tensor, value_b: Tensor,
    out_a: Tensor, out_b: Tensor, lse: Tensor, scale: float,
) -> Gradients:  # fmt: skip
    """Return the gradients of the queries, the key and the values."""
    (d_query_a, d_query_b), d_key, (d_value_a, d_value_b) = launch_gradients(
        [grad_a, grad_b], [query_a, query_b], key, [value_a, value_b], [out_a, out_b], lse, scale
    )
    return d_query_a, d_query_b, d_key, d_value_a, d_value_b


# what PyTorch knows of them


def empty_results(
    query_a: Tensor, query_b: Tensor, key: Tensor, value_a: Tensor, value_b: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Allocate both results, in memory as the query lies, and the logarithms."""
    width = value_a.shape[-1]
    return empty_like_rows(query_a, width), empty_like_rows(query_a, width), empty_lse(query_a, 2)


def _empty_gradients(
    grad_a: Tensor, grad_b: Tensor, query_a: Tensor, query_b: Tensor, key: Tensor, value_a: Tensor, *_: Any
) -> tuple[Tensor, ...]:
    return tuple(empty_like_rows(like, like.shape[-1]) for like in (query_a, query_a, key, value_a, value_a))


def _plain_forward(
    query_a: Tensor, query_b: Tensor, key: Tensor, value_a: Tensor, value_b: Tensor, scale: float
) -> tuple[Tensor, ...]:
    outs = reference.dual_cross_attention(query_a, query_b, key, value_a, value_b, scale)
    lse = torch.cat([partition(query, key, scale) for query in (query_a, query_b)])
    return _library.fill(empty_results(query_a, query_b, key, value_a, value_b, scale), (*outs, lse))


def _plain_backward(grad_a: Tensor, grad_b: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    tensors, scale = inputs[:5], inputs[-1]
    gradients = _library.derivative(reference.dual_cross_attention, (*tensors, scale), [grad_a, grad_b])
    return _library.fill(_empty_gradients(grad_a, grad_b, *tensors), gradients)


forward_op = _library.define(
    "dual_cross_attention_forward(Tensor query_a, Tensor query_b, Tensor key, Tensor value_a, Tensor value_b, "
    "float scale) -> (Tensor, Tensor, Tensor)",
    launch=launch_forward,
    plain=_plain_forward,
    shapes=empty_results,
)
backward_op = _library.define(
    "dual_cross_attention_backward(Tensor grad_a, Tensor grad_b, Tensor query_a, Tensor query_b, Tensor key, "
    "Tensor value_a, Tensor value_b, Tensor out_a, Tensor out_b, Tensor lse, float scale) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    launch=launch_backward,
    plain=_plain_backward,
    shapes=_empty_gradients,
)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output)


def _gradients(ctx: Any, grad_a: Tensor, grad_b: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return *backward_op(grad_a, grad_b, *ctx.saved_tensors, ctx.scale), None


_library.differentiate(forward_op, save=_save, gradients=_gradients)
