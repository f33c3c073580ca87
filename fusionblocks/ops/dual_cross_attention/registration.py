"""The Triton backend of ``dual_cross_attention``: the kernels of ``cross_attention``, both streams in one launch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fusionblocks.ops.cross_attention import launch
from fusionblocks.ops.cross_attention.launch import empty_like_rows
from fusionblocks.ops.cross_attention.registration import STRIDES, empty_lse, plain_backward, plain_forward

Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def dual_cross_attention(
    query_a: Tensor, query_b: Tensor, key: Tensor, value_a: Tensor, value_b: Tensor, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """Run the kernels on the arguments of the public function."""
    factor = key.shape[-1] ** -0.5 if scale is None else float(scale)
    out_a, out_b, _ = forward_op(query_a, query_b, key, value_a, value_b, factor)
    return out_a, out_b


@torch.library.custom_op(
    "fusionblocks::dual_cross_attention_forward", mutates_args=(), device_types="cuda", tags=STRIDES
)
def forward_op(
    query_a: Tensor, query_b: Tensor, key: Tensor, value_a: Tensor, value_b: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return both streams' results and, to base 2, the logarithms of their partition sums."""
    (out_a, out_b), lse = launch.forward([query_a, query_b], key, [value_a, value_b], scale)
    return out_a, out_b, lse


@torch.library.custom_op(
    "fusionblocks::dual_cross_attention_backward", mutates_args=(), device_types="cuda", tags=STRIDES
)
def backward_op(
    grad_a: Tensor, grad_b: Tensor, query_a: Tensor, query_b: Tensor, key: Tensor, value_a: Tensor, value_b: Tensor,
    out_a: Tensor, out_b: Tensor, lse: Tensor, scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients of the queries, the key and the values."""
    (d_query_a, d_query_b), d_key, (d_value_a, d_value_b) = launch.backward(
        [grad_a, grad_b], [query_a, query_b], key, [value_a, value_b], [out_a, out_b], lse, scale
    )
    return d_query_a, d_query_b, d_key, d_value_a, d_value_b


@forward_op.register_kernel("cpu")
def _(
    query_a: Tensor, query_b: Tensor, key: Tensor, value_a: Tensor, value_b: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    out_a, lse_a = plain_forward(query_a, key, value_a, scale)
    out_b, lse_b = plain_forward(query_b, key, value_b, scale)
    return out_a, empty_like_rows(query_a, value_a.shape[-1]).copy_(out_b), torch.cat([lse_a, lse_b])


@backward_op.register_kernel("cpu")
def _(
    grad_a: Tensor, grad_b: Tensor, query_a: Tensor, query_b: Tensor, key: Tensor, value_a: Tensor, value_b: Tensor,
    out_a: Tensor, out_b: Tensor, lse: Tensor, scale: float,
) -> Gradients:  # fmt: skip
    d_query_a, d_key_a, d_value_a = plain_backward(grad_a, query_a, key, value_a, out_a, lse[0], scale)
    d_query_b, d_key_b, d_value_b = plain_backward(grad_b, query_b, key, value_b, out_b, lse[1], scale)
    return (
        d_query_a,
        empty_like_rows(query_a, key.shape[-1]).copy_(d_query_b),
        d_key_a.add_(d_key_b),
        d_value_a,
        empty_like_rows(value_a, value_a.shape[-1]).copy_(d_value_b),
    )


@forward_op.register_fake
def _(
    query_a: Tensor, query_b: Tensor, key: Tensor, value_a: Tensor, value_b: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    width = value_a.shape[-1]
    return empty_like_rows(query_a, width), empty_like_rows(query_a, width), empty_lse(query_a, 2)


@backward_op.register_fake
def _(
    grad_a: Tensor, grad_b: Tensor, query_a: Tensor, query_b: Tensor, key: Tensor, value_a: Tensor, value_b: Tensor,
    out_a: Tensor, out_b: Tensor, lse: Tensor, scale: float,
) -> Gradients:  # fmt: skip
    likes = (query_a, query_a, key, value_a, value_a)
    return tuple(empty_like_rows(like, like.shape[-1]) for like in likes)  # type: ignore[return-value]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output)


def _backward(ctx: Any, grad_a: Tensor, grad_b: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return *backward_op(grad_a, grad_b, *ctx.saved_tensors, ctx.scale), None


forward_op.register_autograd(_backward, setup_context=_setup)
