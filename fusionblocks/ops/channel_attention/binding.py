"""The kernels as operators of PyTorch: shapes for tracing, launches, and the derivative.

``fusionblocks::channel_attention_forward`` also returns what its derivative needs: attention and cosines
``(B, heads, C, C)`` and the inverse norms of query and key channels ``(B, heads, 2, C)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fusionblocks.ops import _library, _tiles, _triton
from fusionblocks.ops._tiles import Launch, ceildiv, power_of_two
from fusionblocks.ops.channel_attention import reference
from fusionblocks.ops.channel_attention.reference import split_projection

WIDEST = 64  # channels of a head whose C x C matrix one program holds

PROGRAMS = 512  # of a launch; a constant, so that results do not depend on which device it fills
PROGRAMS_OF_TILES = 256  # of a reduction to large matrices, each program's partial sum being one
TILE = 64  # rows and columns of a matrix tile
LANES = 8192  # products of a tile that are summed lane by lane: 64 a thread

Saved = tuple[Tensor, Tensor, Tensor, Tensor]
Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


class Tiles(NamedTuple):
    """How many positions a program holds at a time, and on how many warps and pipeline stages."""

    positions: int
    warps: int
    stages: int


def refuse(tensors: Sequence[Tensor]) -> str | None:
    """Return why the kernels cannot serve a call, or None."""
    if tensors and tensors[0].shape[2] > WIDEST:
        return f"heads have more than {WIDEST} channels"
    return _triton.refuse(tensors)


def channel_attention(
    query: Tensor, key: Tensor, value: Tensor, temperature: Tensor, projection: Tensor | None = None
) -> Tensor:
    """Run the kernels on the arguments of the public function; differentiable once."""
    out: Tensor = forward_op(query, key, value, temperature, projection)[0]
    return out


# launches


def launch_forward(query: Tensor, key: Tensor, value: Tensor, temperature: Tensor, projection: Tensor | None) -> Saved:
    """Return the output, and for the backward pass attention, cosines ``(B, H, C, C)`` and inverse norms."""
    from fusionblocks.ops.channel_attention import kernels

    out, attention, cosines, scales = empty_results(query, key, value, temperature, projection)
    products, squares = _reduce(query, key, merged=False, norms=True)
    results = (temperature.contiguous(), attention, cosines, scales)
    _of_matrices(kernels.attend_kernel, query, (products, squares, *results), HALF=query.dtype == torch.float16)
    if projection is None:
        _apply(attention, value, out, merged=False)
    else:
        matrix = split_projection(projection, torch.float32, query.shape[1]) @ attention
        _apply(matrix, value, out[:, None], merged=True)
    return out, attention, cosines, scales


def launch_backward(
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
    """Return the gradients in the order of the arguments, that of an absent projection empty."""
    from fusionblocks.ops.channel_attention import kernels

    batch, heads, channels, positions = query.shape
    grad_query, grad_key, grad_value = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
    if projection is None:
        grad_attention, _ = _reduce(grad, value, merged=False, norms=False)  # (B H, splits, C, C)
        _apply(attention.mT, grad, grad_value, merged=False)
        grad_projection = value.new_empty(0)
    else:
        per_head = split_projection(projection, torch.float32, heads)
        grad_matrix = _reduce(grad[:, None], value, merged=True, norms=False)[0].sum(1)
        grad_matrix = grad_matrix.unflatten(2, (heads, channels)).transpose(1, 2)  # (B, H, O, C)
        _apply((per_head @ attention).mT, grad[:, None], grad_value, merged=True)
        grad_attention = (per_head.mT @ grad_matrix).flatten(0, 1)[:, None].contiguous()
        grad_projection = (grad_matrix @ attention.mT).sum(0).transpose(0, 1).flatten(1)  # (O, H C)
        grad_projection = projection.new_empty(projection.shape).copy_(grad_projection)
    matrix, diagonals = torch.empty_like(attention), torch.empty_like(scales)
    grad_temperature = attention.new_empty(batch, heads)
    results = (temperature.contiguous(), matrix, diagonals, grad_temperature)
    _of_matrices(kernels.differentiate_kernel, query, (grad_attention, attention, cosines, scales, *results))

    block = _block(channels)
    use_dot = _use_dot(query, channels)
    maps = (query, key, grad_query, grad_key)
    switches = _switches(maps, use_dot)

    def prepare(tiles: Tiles) -> Launch:
        per_program, splits = _split(positions, tiles.positions, batch * heads, PROGRAMS)
        arguments = (matrix, diagonals, *maps, *(x.stride() for x in maps), heads, positions, per_program, splits)
        constants = {"C": channels, "BC": block, "BN": tiles.positions, **switches, **_options(tiles)}
        return Launch(batch * heads * splits, arguments, constants)

    settings = _settings(query, block, block, use_dot, warps=8 if block == TILE else 4)
    _tiles.launch(kernels.apply_pair_kernel, settings, (*maps, switches["PRECISION"]), prepare)
    grad_temperature = torch.empty_like(temperature).copy_(grad_temperature.sum(0).view_as(temperature))
    return grad_query, grad_key, grad_value, grad_temperature, grad_projection


def _of_matrices(kernel: Any, query: Tensor, tensors: tuple[Tensor, ...], **constants: Any) -> None:
    """Launch a kernel that works on the C x C matrices, one program a head; partial sums come first."""
    batch, heads, channels, _ = query.shape
    block = _block(channels)

    def prepare(summed: int) -> Launch:
        sizes = {"C": channels, "BC": block, "BS": summed, "num_warps": 4, "enable_fp_fusion": True}
        return Launch(batch * heads, (*tensors, heads, tensors[0].shape[1]), {**sizes, **constants})

    most = max(1, LANES // block**2 // 2)  # partial sums that are read at a time
    _tiles.launch(kernel, tuple(dict.fromkeys((most, max(1, most // 4), 1))), (query.dtype, *tensors), prepare)


def _reduce(x: Tensor, y: Tensor, *, merged: bool, norms: bool) -> tuple[Tensor, Tensor]:
    """Return partial sums ``(groups, splits, I, J)`` of ``x y^T`` and ``(groups, splits, 2, I)`` of both squares.

    A group is a head, or with ``merged`` all heads of one picture.
    """
    from fusionblocks.ops.channel_attention import kernels

    batch, heads, channels, positions = x.shape
    groups = batch if merged else batch * heads
    rows, columns = (x.shape[1] * x.shape[2], y.shape[1] * y.shape[2]) if merged else (channels, channels)
    use_dot = _use_dot(x, max(rows, columns))
    bx, by = _block(rows, use_dot), _block(columns, use_dot)
    tiles_of_matrix = ceildiv(rows, bx) * ceildiv(columns, by)
    sizes = {"X": rows, "Y": columns, "XC": x.shape[2], "YC": y.shape[2], "BX": bx, "BY": by, "USE_NORMS": norms}
    switches = _switches((x, y), use_dot)

    def prepare(tiles: Tiles) -> Launch:
        most = PROGRAMS_OF_TILES if use_dot else PROGRAMS
        per_program, splits = _split(positions, tiles.positions, groups * tiles_of_matrix, most)
        products = x.new_empty(groups, splits, rows, columns, dtype=torch.float32)
        squares = products.new_empty(groups, splits, 2, rows if norms else 0)
        counts = (1 if merged else heads, positions, per_program, splits)
        arguments = (x, y, products, squares, x.stride(), y.stride(), *counts)
        constants = {**sizes, "BN": tiles.positions, **switches, **_options(tiles)}
        return Launch(groups * tiles_of_matrix * splits, arguments, constants, (products, squares))

    call = (x, y, merged, norms, switches["PRECISION"])
    products, squares = _tiles.launch(kernels.reduce_kernel, _settings(x, bx, by, use_dot), call, prepare)
    if use_dot and products.shape[1] > 1:  # megabytes, which one program a head would be long about
        products, squares = products.sum(1, keepdim=True), squares.sum(1, keepdim=True)
    return products, squares


def _apply(matrix: Tensor, x: Tensor, out: Tensor, *, merged: bool) -> None:
    """Write ``matrix @ x`` into ``out``; with ``merged`` over all heads of whichever has several, head by head else.

    ``matrix`` is ``(B, H, R, K)``, of which ``out`` has the rows and ``x`` the columns.
    """
    from fusionblocks.ops.channel_attention import kernels

    batch, heads, rows, positions = out.shape
    columns = x.shape[2]
    groups = batch if merged else batch * heads
    all_rows, all_columns = (rows * heads, columns * x.shape[1]) if merged else (rows, columns)
    use_dot = _use_dot(x, max(all_rows, all_columns))
    br, bk = _block(all_rows, use_dot), _block(all_columns, use_dot)
    tiles_of_matrix = ceildiv(all_rows, br)
    sizes = {"R": all_rows, "K": all_columns, "OC": rows, "XC": columns, "BR": br, "BK": bk}
    switches = _switches((x, out), use_dot)

    def prepare(tiles: Tiles) -> Launch:
        per_program, splits = _split(positions, tiles.positions, groups * tiles_of_matrix, PROGRAMS)
        counts = (1 if merged else heads, positions, per_program, splits)
        arguments = (matrix, x, out, matrix.stride(), x.stride(), out.stride(), *counts)
        constants = {**sizes, "BN": tiles.positions, **switches, **_options(tiles)}
        return Launch(groups * tiles_of_matrix * splits, arguments, constants)

    call = (matrix, x, out, merged, switches["PRECISION"])
    _tiles.launch(kernels.apply_kernel, _settings(x, br, bk, use_dot), call, prepare)


def _use_dot(x: Tensor, size: int) -> bool:
    """Return whether matrices of this size are for ``tl.dot``, whose least tile of 16 wastes work on smaller ones."""
    return size > (16 if x.dtype == torch.float32 else 8)


def _block(size: int, use_dot: bool = False) -> int:
    return max(16 if use_dot else 4, min(power_of_two(size), TILE))


def _settings(x: Tensor, rows: int, columns: int, use_dot: bool, warps: int = 4) -> tuple[Tiles, ...]:
    """Return the tiles to try, the best first."""
    if use_dot:
        positions = 32 if x.dtype == torch.float32 else 128
        return tuple(
            dict.fromkeys(
                (
                    Tiles(positions, warps, 2 if x.dtype == torch.float32 else 3),
                    Tiles(max(16, positions // 2), warps, 2),
                    Tiles(max(16, positions // 4), 4, 1),
                    Tiles(16, 8, 1),
                )
            )
        )
    positions = min(512, LANES // (rows * columns))
    return Tiles(positions, warps, 3), Tiles(positions // 2, warps, 2), Tiles(positions // 4, warps, 1)


def _split(positions: int, bn: int, groups: int, programs: int) -> tuple[int, int]:
    """Return the positions of a program, a multiple of ``bn``, and the number of programs for each group."""
    splits = max(1, min(programs // groups, ceildiv(positions, 4 * bn)))
    per_program = ceildiv(ceildiv(positions, splits), bn) * bn
    return per_program, ceildiv(positions, per_program)


def _switches(maps: tuple[Tensor, ...], use_dot: bool) -> dict[str, object]:
    """Return the compile-time switches of a launch over maps ``(B, H, C, N)``."""
    dtype = maps[0].dtype
    return {
        "ADJACENT": all(x.shape[1] == 1 or x.stride(1) == x.shape[2] * x.stride(2) for x in maps),
        "USE_DOT": use_dot,
        "UPCAST": _triton.interpreting() and dtype == torch.bfloat16,  # which the interpreter multiplies as integers
        "PRECISION": _triton.input_precision() if dtype == torch.float32 else "ieee",
    }


def _options(tiles: Tiles) -> dict[str, object]:
    return {"STAGES": tiles.stages, "num_warps": tiles.warps, "enable_fp_fusion": True}


# what PyTorch knows of them


def empty_results(query: Tensor, key: Tensor, value: Tensor, temperature: Tensor, projection: Tensor | None) -> Saved:
    """Allocate the results: the output laid out as ``value`` is, and what the backward pass needs."""
    batch, heads, channels, positions = query.shape
    exact = torch.promote_types(query.dtype, torch.float32)
    attention = query.new_empty((batch, heads, channels, channels), dtype=exact)
    if projection is None:
        out = torch.empty_like(value)
    elif value.stride(2) == 1 and value.stride(3) > 1:
        out = value.new_empty(batch, positions, projection.shape[0]).mT
    else:
        out = value.new_empty(batch, projection.shape[0], positions)
    return out, attention, torch.empty_like(attention), attention.new_empty(batch, heads, 2, channels)


def _empty_gradients(grad: Tensor, *tensors: Any) -> tuple[Tensor, ...]:
    *others, value, temperature, projection = tensors[:5]
    maps = (torch.empty_like(x) for x in (*others, value, temperature))
    return *maps, value.new_empty(0) if projection is None else projection.new_empty(projection.shape)


def _plain_forward(
    query: Tensor, key: Tensor, value: Tensor, temperature: Tensor, projection: Tensor | None
) -> tuple[Tensor, ...]:
    cosines = reference.cosines(query, key)
    scales = torch.stack([1 / reference.norms(x).squeeze(-1) for x in (query, key)], dim=2)
    out = reference.channel_attention(query, key, value, temperature, projection)
    rooms = empty_results(query, key, value, temperature, projection)
    return _library.fill(rooms, (out, reference.weights(cosines, temperature), cosines, scales))


def _plain_backward(grad: Tensor, *tensors: Any) -> tuple[Tensor, ...]:
    inputs = tensors[:5]
    gradients = _library.derivative(reference.channel_attention, inputs, [grad])
    return _library.fill(_empty_gradients(grad, *inputs), gradients)


forward_op = _library.define(
    "channel_attention_forward(Tensor query, Tensor key, Tensor value, Tensor temperature, Tensor? projection) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    launch=launch_forward,
    plain=_plain_forward,
    shapes=empty_results,
)
backward_op = _library.define(
    "channel_attention_backward(Tensor grad, Tensor query, Tensor key, Tensor value, Tensor temperature, "
    "Tensor? projection, Tensor attention, Tensor cosines, Tensor scales) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    launch=launch_backward,
    plain=_plain_backward,
    shapes=_empty_gradients,
)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Saved) -> None:
    ctx.save_for_backward(*inputs, *output[1:])
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 5
    *gradients, grad_projection = backward_op(grad, *ctx.saved_tensors)
    return (*gradients, grad_projection if ctx.needs_input_grad[4] else None)


_library.differentiate(forward_op, save=_save, gradients=_gradients)
