"""The kernels as operators of PyTorch: which direction a call has, shapes for tracing, launches, and the derivative.

Pixels that ask tokens are the operators of ``folded_token_attention``; here are tokens that ask pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fusionblocks.ops import _library, _tiles, _triton
from fusionblocks.ops._tiles import Launch, ceildiv, power_of_two
from fusionblocks.ops.cross_attention.reference import partition
from fusionblocks.ops.folded_token_attention import binding as folded
from fusionblocks.ops.folded_token_attention.binding import Tiles, empty_map
from fusionblocks.ops.token_attention import reference


def refuse(tensors: Sequence[Tensor]) -> str | None:
    """Return why the kernels cannot serve a call of ``token_attention``, or None."""
    reason = _triton.refuse(tensors)
    if reason is not None or not tensors:
        return reason
    query, key, value = tensors
    return folded.refuse_sizes(min(query.shape[2], key.shape[2]), query.shape[3], value.shape[3])


def token_attention(query: Tensor, key: Tensor, value: Tensor, scale: float | None = None) -> Tensor:
    """Run the kernels on the arguments of the public function; differentiable once."""
    factor = query.shape[-1] ** -0.5 if scale is None else float(scale)
    if key.shape[2] <= folded.MAX_TOKENS:
        out: Tensor = folded.forward_op(query.mT, key[:, :, None], value[:, :, None], None, factor, False)
        return out.mT
    answer: Tensor = forward_op(query, key.mT, value.mT, factor)[0]
    return answer


# launches


def launch_forward(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Let tokens ``(B, heads, T, C)`` ask maps: key ``(B, heads, C, N)``, value ``(B, heads, E, N)``.

    Returns the answers ``(B, heads, T, E)`` and, in float32, the base-2 logarithm of each softmax's denominator.
    """
    from fusionblocks.ops.token_attention import kernels

    batch, heads, tokens, width = query.shape
    value_width, pixels = value.shape[2:]
    query = query.contiguous()
    one_map = key.data_ptr() == value.data_ptr() and key.shape == value.shape and key.stride() == value.stride()
    switches = folded.arithmetic(query)

    def attend(tiles: Tiles) -> Launch:
        pixel_tiles, value_tiles = ceildiv(pixels, tiles.pixels), ceildiv(value_width, tiles.values)
        channel_tiles = ceildiv(width, tiles.channels)
        splits, tiles_a_split = folded.split(pixel_tiles, batch * heads * value_tiles)
        parts = [
            torch.empty(batch, heads, splits, tokens, *tail, dtype=torch.float32, device=query.device)
            for tail in ((value_width,), (), ())
        ]
        sizes = (heads, tokens, width, value_width, pixels, pixel_tiles, splits, value_tiles, tiles_a_split)
        arguments = (query, key, value, *parts, scale, *sizes, *key.stride(), *value.stride())
        counts = {"NC": channel_tiles, "SHARED": one_map and channel_tiles == 1}
        constants = {**folded.as_constants(tiles, tokens), **counts, **switches}
        return Launch(batch * heads * splits * value_tiles, arguments, constants, (parts, tiles.values))

    to_try = folded.settings(query, tokens, width, value_width)
    call = (query, key, value, one_map, switches["PRECISION"])
    parts, block = _tiles.launch(kernels.forward_kernel, to_try, call, attend)
    answer, logarithms = empty_results(query, key, value, scale)
    splits, value_tiles = parts[0].shape[2], ceildiv(value_width, block)

    def combine(rows: int) -> Launch:
        arguments = (*parts, answer, logarithms, tokens, value_width, splits, value_tiles)
        constants = {"BS": rows, "NB": power_of_two(ceildiv(splits, rows)), "BE": block}
        return Launch(batch * heads * tokens * value_tiles, arguments, {**constants, "enable_fp_fusion": True})

    most = min(32, power_of_two(splits))
    _tiles.launch(kernels.combine_kernel, tuple(dict.fromkeys((most, max(1, most // 4)))), (*parts, answer), combine)
    return answer, logarithms


def launch_backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, answer: Tensor, logarithms: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and value."""
    from fusionblocks.ops.token_attention import kernels

    batch, heads, tokens, width = query.shape
    value_width, pixels = value.shape[2:]
    delta = (gradient.float() * answer.float()).sum(-1)
    d_key, d_value = empty_map(key, width), empty_map(value, value_width)
    gradient, query = gradient.contiguous(), query.contiguous()
    switches = folded.arithmetic(query)

    def prepare(tiles: Tiles) -> Launch:
        channel_tiles, value_tiles = ceildiv(width, tiles.channels), ceildiv(value_width, tiles.values)
        pixel_tiles, columns = ceildiv(pixels, tiles.pixels), max(channel_tiles, value_tiles)
        splits, tiles_a_split = folded.split(pixel_tiles, batch * heads * columns)
        parts = torch.empty(batch, heads, splits, tokens, width, dtype=torch.float32, device=query.device)
        sizes = (heads, tokens, width, value_width, pixels, pixel_tiles, splits, columns, tiles_a_split)
        strides = (*key.stride(), *value.stride(), *d_key.stride(), *d_value.stride())
        arguments = (gradient, query, key, value, delta, logarithms, parts, d_key, d_value, scale, *sizes, *strides)
        counts = {"NC": channel_tiles, "NE": value_tiles}
        constants = {**folded.as_constants(tiles, tokens), **counts, **switches}
        return Launch(batch * heads * splits * columns, arguments, constants, parts)

    to_try = folded.settings(query, tokens, width, value_width, backward=True)
    call = (gradient, query, key, value, logarithms, d_key, d_value, switches["PRECISION"])
    parts = _tiles.launch(kernels.backward_kernel, to_try, call, prepare)
    return parts.sum(2).to(query.dtype), d_key, d_value


# what PyTorch knows of them


def empty_results(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Allocate answers and logarithms."""
    exact = torch.promote_types(query.dtype, torch.float32)
    answer = query.new_empty((*query.shape[:3], value.shape[2]))
    return answer, query.new_empty(query.shape[:3], dtype=exact)


def _empty_gradients(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any) -> tuple[Tensor, ...]:
    maps = (empty_map(key, key.shape[2]), empty_map(value, value.shape[2]))
    return query.new_empty(query.shape), *maps


def _attend(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Compute the reference of maps as columns."""
    return reference.token_attention(query, key.mT, value.mT, scale)


def _plain_forward(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, ...]:
    results = _attend(query, key, value, scale), partition(query, key.mT, scale)[0]
    return _library.fill(empty_results(query, key, value, scale), results)


def _plain_backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, answer: Tensor, logarithms: Tensor, scale: float
) -> tuple[Tensor, ...]:
    gradients = _library.derivative(_attend, (query, key, value, scale), [gradient])
    return _library.fill(_empty_gradients(gradient, query, key, value), gradients)


forward_op = _library.define(
    "token_attention_forward(Tensor query, Tensor key, Tensor value, float scale) -> (Tensor, Tensor)",
    launch=launch_forward,
    plain=_plain_forward,
    shapes=empty_results,
)
backward_op = _library.define(
    "token_attention_backward(Tensor gradient, Tensor query, Tensor key, Tensor value, Tensor answer, "
    "Tensor logarithms, float scale) -> (Tensor, Tensor, Tensor)",
    launch=launch_backward,
    plain=_plain_backward,
    shapes=_empty_gradients,
)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, ctx.scale = inputs
    answer, logarithms = output
    ctx.mark_non_differentiable(logarithms)
    ctx.save_for_backward(query, key, value, answer, logarithms)


def _gradients(ctx: Any, gradient: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    return (*backward_op(gradient, *ctx.saved_tensors, ctx.scale), None)


_library.differentiate(forward_op, save=_save, gradients=_gradients)
