"""The Triton backend of pixels asking tokens: ``torch.library`` operators, their CPU stand-ins and derivatives.

These operators serve ``token_attention`` too. Their layout has groups, each with a feature map of its own, and within
a group heads that are summed over: map ``(B, groups, C, N)``, key ``(B, groups, heads, T, C)``, value
``(B, groups, heads, T, E)``, bias ``(B, groups, heads, T)``, result ``(B, groups, E, N)``. A folded attention has one
group; an attention that keeps its heads apart has a group per head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fusionblocks.ops import _triton

MAX_TOKENS = 128
MAX_WIDTH = 512


def refuse(tensors: Sequence[Tensor]) -> str | None:
    """Return why the kernels cannot serve a call of ``folded_token_attention``, or None."""
    reason = _triton.refuse(tensors)
    if reason is not None or not tensors:
        return reason
    image, key, value = tensors[:3]
    return refuse_sizes(key.shape[2], image.shape[1], value.shape[3])


def refuse_sizes(tokens: int, width: int, value_width: int) -> str | None:
    """Return why the kernels cannot serve so many tokens of such widths, or None."""
    if tokens > MAX_TOKENS:
        return f"{tokens} tokens are more than {MAX_TOKENS}"
    if max(width, value_width) > MAX_WIDTH:
        return f"a width of {max(width, value_width)} is more than {MAX_WIDTH}"
    return None


def folded_token_attention(
    image: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None, residual: bool = False
) -> Tensor:
    """Run the kernels on the arguments of the public function."""
    grouped = None if bias is None else bias[:, None]
    return forward_op(image[:, None], key[:, None], value[:, None], grouped, 1.0, residual)[:, 0]


def empty_map(like: Tensor, width: int) -> Tensor:
    """Return an uninitialised ``(B, groups, width, N)`` whose pixels or channels lie together as those of ``like``."""
    batch, groups, _, pixels = like.shape
    if like.stride(2) == 1 and like.stride(3) != 1:
        return like.new_empty((batch, groups, pixels, width)).mT
    return like.new_empty((batch, groups, width, pixels))


@torch.library.custom_op("fusionblocks::folded_token_attention_forward", mutates_args=(), device_types="cuda")
def forward_op(image: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, residual: bool) -> Tensor:
    """Compute ``sum_h softmax_t(scale * key @ image + bias)^T @ value``."""
    from fusionblocks.ops.folded_token_attention import kernels

    return kernels.forward(image, key, value, bias, scale, residual)


@torch.library.custom_op("fusionblocks::folded_token_attention_backward", mutates_args=(), device_types="cuda")
def backward_op(
    gradient: Tensor, image: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, residual: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of image, key, value and bias."""
    from fusionblocks.ops.folded_token_attention import kernels

    return kernels.backward(gradient, image, key, value, bias, scale, residual)


def _weights(image: Tensor, key: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    logits = scale * (key @ image[:, :, None])
    return (logits if bias is None else logits + bias[..., None]).softmax(-2)  # (B, groups, heads, T, N)


@forward_op.register_kernel("cpu")
def _(image: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, residual: bool) -> Tensor:
    answer = (value.mT @ _weights(image, key, bias, scale)).sum(2)
    return empty_map(image, value.shape[-1]).copy_(image + answer if residual else answer)


@backward_op.register_kernel("cpu")
def _(
    gradient: Tensor, image: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, residual: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    weights = _weights(image, key, bias, scale)
    d_weights = value @ gradient[:, :, None]
    d_logits = weights * (d_weights - (weights * d_weights).sum(-2, keepdim=True))
    d_image = scale * (key.mT @ d_logits).sum(2)
    return (
        empty_map(image, image.shape[2]).copy_(d_image + gradient if residual else d_image),
        scale * (d_logits @ image[:, :, None].mT),
        weights @ gradient[:, :, None].mT,
        d_logits.sum(-1),
    )


@forward_op.register_fake
def _(image: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, residual: bool) -> Tensor:
    return empty_map(image, value.shape[-1])


@backward_op.register_fake
def _(
    gradient: Tensor, image: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, residual: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        empty_map(image, image.shape[2]),
        key.new_empty(key.shape),
        value.new_empty(value.shape),
        key.new_empty(key.shape[:-1]),
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    image, key, value, bias, ctx.scale, ctx.residual = inputs
    ctx.save_for_backward(image, key, value, bias)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    image, key, value, bias = ctx.saved_tensors
    d_image, d_key, d_value, d_bias = backward_op(gradient, image, key, value, bias, ctx.scale, ctx.residual)
    return d_image, d_key, d_value, None if bias is None else d_bias, None, None


forward_op.register_autograd(_backward, setup_context=_setup)
