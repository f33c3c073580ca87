"""The kernels as operators of PyTorch: shapes for tracing, a CPU implementation, and the derivative.

``fusionblocks::channel_attention_forward`` also returns what its derivative needs: attention and cosines
``(B, heads, C, C)`` and the inverse norms of query and key channels ``(B, heads, 2, C)``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from fusionblocks._support.autocast import no_autocast
from fusionblocks.ops.channel_attention import launch
from fusionblocks.ops.channel_attention.reference import EPS

Saved = tuple[Tensor, Tensor, Tensor, Tensor]
Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def channel_attention(
    query: Tensor, key: Tensor, value: Tensor, temperature: Tensor, projection: Tensor | None = None
) -> Tensor:
    """Compute the attention by kernels; differentiable once."""
    return _forward(query, key, value, temperature, projection)[0]


@torch.library.custom_op("fusionblocks::channel_attention_forward", mutates_args=(), device_types="cuda")
def _forward(query: Tensor, key: Tensor, value: Tensor, temperature: Tensor, projection: Tensor | None) -> Saved:
    with _alone(query):
        return launch.forward(query, key, value, temperature, projection)


@torch.library.custom_op("fusionblocks::channel_attention_backward", mutates_args=(), device_types="cuda")
def _backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    temperature: Tensor,
    projection: Tensor | None,
    attention: Tensor,
    cosines: Tensor,
    scales: Tensor,
) -> Gradients:
    with _alone(query):
        return launch.backward(grad, query, key, value, temperature, projection, attention, cosines, scales)


@_forward.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, temperature: Tensor, projection: Tensor | None) -> Saved:
    batch, heads, channels, _ = query.shape
    attention = query.new_empty(batch, heads, channels, channels, dtype=_exact(query))
    scales = attention.new_empty(batch, heads, 2, channels)
    return launch.empty_output(value, projection), attention, torch.empty_like(attention), scales


@_backward.register_fake
def _(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    temperature: Tensor,
    projection: Tensor | None,
    attention: Tensor,
    cosines: Tensor,
    scales: Tensor,
) -> Gradients:
    return (
        torch.empty_like(query),
        torch.empty_like(key),
        torch.empty_like(value),
        torch.empty_like(temperature),
        value.new_empty(0) if projection is None else projection.new_empty(projection.shape),
    )


@_forward.register_kernel("cpu")
def _(query: Tensor, key: Tensor, value: Tensor, temperature: Tensor, projection: Tensor | None) -> Saved:
    with _alone(query):
        exact = _exact(query)
        q, k = query.to(exact), key.to(exact)
        scales = torch.stack([_inverse_norms(q, query.dtype), _inverse_norms(k, query.dtype)], dim=2)
        cosines = q @ k.mT * scales[:, :, 0, :, None] * scales[:, :, 1, None, :]
        attention = (cosines * temperature.to(exact)).softmax(dim=-1)
        out = launch.empty_output(value, projection)
        if projection is None:
            out.copy_(attention @ value.to(exact))
        else:
            matrix = launch.split_projection(projection, exact, query.shape[1]) @ attention  # B h o c
            out.copy_((matrix @ value.to(exact)).sum(1))
        return out, attention, cosines, scales


@_backward.register_kernel("cpu")
def _(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    temperature: Tensor,
    projection: Tensor | None,
    attention: Tensor,
    cosines: Tensor,
    scales: Tensor,
) -> Gradients:
    with _alone(query):
        exact = _exact(query)
        q, k, v, grad = query.to(exact), key.to(exact), value.to(exact), grad.to(exact)
        grad_projection = value.new_empty(0)
        if projection is None:
            grad_attention = grad @ v.mT
            grad_value = attention.mT @ grad
        else:
            per_head = launch.split_projection(projection, exact, query.shape[1])  # h o c
            grad_matrix = grad[:, None] @ v.mT  # B h o c
            grad_attention = per_head.mT @ grad_matrix
            grad_value = (per_head @ attention).mT @ grad[:, None]
            grad_projection = (grad_matrix @ attention.mT).sum(0).transpose(0, 1).flatten(1)
            grad_projection = projection.new_empty(projection.shape).copy_(grad_projection)
        grad_logits = attention * (grad_attention - (attention * grad_attention).sum(-1, keepdim=True))
        grad_temperature = (grad_logits * cosines).sum((0, 2, 3)).view_as(temperature)
        grad_cosines = grad_logits * temperature.to(exact)
        a, b = scales[:, :, 0, :, None], scales[:, :, 1, None, :]
        matrix = grad_cosines * a * b
        along = grad_cosines * cosines
        held = 1 / torch.tensor(EPS, dtype=exact)  # a norm held at EPS does not depend on its channel
        towards_q = torch.where(a < held, -(a**2) * along.sum(-1, keepdim=True), 0)
        towards_k = torch.where(b < held, -(b**2) * along.sum(-2, keepdim=True), 0).mT
        return (
            _laid_out_as(query, matrix @ k + towards_q * q),
            _laid_out_as(key, matrix.mT @ q + towards_k * k),
            _laid_out_as(value, grad_value),
            _laid_out_as(temperature, grad_temperature),
            grad_projection,
        )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Saved) -> None:
    ctx.save_for_backward(*inputs, *output[1:])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 5
    *gradients, grad_projection = _backward(grad, *ctx.saved_tensors)
    return (*gradients, grad_projection if ctx.needs_input_grad[4] else None)


_forward.register_autograd(_differentiate, setup_context=_setup_context)


@contextlib.contextmanager
def _alone(tensor: Tensor) -> Iterator[None]:
    """On the tensor's device, and without autocast, which would round the small float32 matrices."""
    device = tensor.device
    with contextlib.ExitStack() as stack:
        stack.enter_context(no_autocast(device.type))
        if tensor.is_cuda:
            stack.enter_context(torch.cuda.device(device))
        yield


def _exact(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _inverse_norms(x: Tensor, dtype: torch.dtype) -> Tensor:
    norms = torch.linalg.vector_norm(x, dim=-1)
    inverse = 1 / norms.clamp_min(EPS)
    return inverse.masked_fill(norms < EPS, 0) if dtype == torch.float16 else inverse


def _laid_out_as(tensor: Tensor, values: Tensor) -> Tensor:
    return torch.empty_like(tensor).copy_(values)
