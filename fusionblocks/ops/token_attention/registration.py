"""The Triton backend of token attention: which direction a call has, and the operators of tokens asking pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fusionblocks.ops import _triton
from fusionblocks.ops.folded_token_attention import registration as folded

LOG2E = math.log2(math.e)


def refuse(tensors: Sequence[Tensor]) -> str | None:
    """Return why the kernels cannot serve a call of ``token_attention``, or None."""
    reason = _triton.refuse(tensors)
    if reason is not None or not tensors:
        return reason
    query, key, value = tensors
    return folded.refuse_sizes(min(query.shape[2], key.shape[2]), query.shape[3], value.shape[3])


def token_attention(query: Tensor, key: Tensor, value: Tensor, scale: float | None = None) -> Tensor:
    """Run the kernels on the arguments of the public function."""
    factor = query.shape[-1] ** -0.5 if scale is None else float(scale)
    if key.shape[2] <= folded.MAX_TOKENS:
        return folded.forward_op(query.mT, key[:, :, None], value[:, :, None], None, factor, False).mT
    answer: Tensor = forward_op(query, key.mT, value.mT, factor)[0]
    return answer


@torch.library.custom_op("fusionblocks::token_attention_forward", mutates_args=(), device_types="cuda")
def forward_op(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Let tokens ``(B, heads, T, C)`` ask maps: key ``(B, heads, C, N)``, value ``(B, heads, E, N)``.

    Returns the answers ``(B, heads, T, E)`` and, in float32, the base-2 logarithm of each softmax's denominator.
    """
    from fusionblocks.ops.token_attention import kernels

    return kernels.forward(query, key, value, scale)


@torch.library.custom_op("fusionblocks::token_attention_backward", mutates_args=(), device_types="cuda")
def backward_op(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, answer: Tensor, denominator: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and value."""
    from fusionblocks.ops.token_attention import kernels

    return kernels.backward(gradient, query, key, value, answer, denominator, scale)


def _accumulating(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


@forward_op.register_kernel("cpu")
def _(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    logits = scale * (query @ key)
    denominator = torch.logsumexp(logits.to(_accumulating(query)), -1) * LOG2E
    return (logits.softmax(-1) @ value.mT).contiguous(), denominator


@backward_op.register_kernel("cpu")
def _(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, answer: Tensor, denominator: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    weights = (scale * (query @ key)).softmax(-1)
    d_weights = gradient @ value
    d_logits = scale * weights * (d_weights - (gradient * answer).sum(-1, keepdim=True))
    return (
        (d_logits @ key.mT).contiguous(),
        folded.empty_map(key, key.shape[2]).copy_(query.mT @ d_logits),
        folded.empty_map(value, value.shape[2]).copy_(gradient.mT @ weights),
    )


@forward_op.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    answer = query.new_empty((*query.shape[:3], value.shape[2]))
    return answer, query.new_empty(query.shape[:3], dtype=_accumulating(query))


@backward_op.register_fake
def _(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, answer: Tensor, denominator: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        query.new_empty(query.shape),
        folded.empty_map(key, key.shape[2]),
        folded.empty_map(value, value.shape[2]),
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, ctx.scale = inputs
    answer, denominator = output
    ctx.mark_non_differentiable(denominator)
    ctx.save_for_backward(query, key, value, answer, denominator)


def _backward(ctx: Any, gradient: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    return (*backward_op(gradient, *ctx.saved_tensors, ctx.scale), None)


forward_op.register_autograd(_backward, setup_context=_setup)
