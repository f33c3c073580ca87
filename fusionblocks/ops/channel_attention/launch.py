"""Launches of the kernels: room for the results, grids, and tile sizes from small fixed rules."""

from __future__ import annotations

import torch
from torch import Tensor

from fusionblocks.ops import _triton

PROGRAMS = 512  # of a launch; a constant, so that results do not depend on which device it fills
PROGRAMS_OF_TILES = 256  # of a reduction to large matrices, each program's partial sum being one
TILE = 64  # rows and columns of a matrix tile
LAUNCH: dict[str, object] = {"num_warps": 4, "enable_fp_fusion": True}
LANES = 8192  # products of a tile that are summed lane by lane: 64 a thread


def forward(
    query: Tensor, key: Tensor, value: Tensor, temperature: Tensor, projection: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the output, and for the backward pass attention, cosines ``(B, H, C, C)`` and inverse norms."""
    from fusionblocks.ops.channel_attention import kernels

    batch, heads, channels, _ = query.shape
    products, squares = _reduce(query, key, merged=False, norms=True)
    attention = query.new_empty(batch, heads, channels, channels, dtype=torch.float32)
    cosines = torch.empty_like(attention)
    scales = attention.new_empty(batch, heads, 2, channels)
    block = _block(channels)
    kernels.attend_kernel[(batch * heads,)](
        products,
        squares,
        temperature.contiguous(),
        attention,
        cosines,
        scales,
        heads,
        products.shape[1],
        C=channels,
        BC=block,
        BS=max(1, LANES // block**2 // 2),
        HALF=query.dtype == torch.float16,
        **LAUNCH,
    )
    out = empty_output(value, projection)
    if projection is None:
        _apply(attention, value, out, merged=False)
    else:
        _apply(split_projection(projection, torch.float32, heads) @ attention, value, out[:, None], merged=True)
    return out, attention, cosines, scales


def backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    temperature: Tensor,
    projection: Tensor | None,
    attention: Tensor,
    cosines: Tensor,
    scales: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients in the order of the arguments, that of an absent projection empty."""
    from fusionblocks.ops.channel_attention import kernels

    batch, heads, channels, positions = query.shape
    grad_value = torch.empty_like(value)
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
    matrix = torch.empty_like(attention)
    diagonals = torch.empty_like(scales)
    grad_temperature = attention.new_empty(batch, heads)
    block = _block(channels)
    kernels.differentiate_kernel[(batch * heads,)](
        grad_attention,
        attention,
        cosines,
        scales,
        temperature.contiguous(),
        matrix,
        diagonals,
        grad_temperature,
        heads,
        grad_attention.shape[1],
        C=channels,
        BC=block,
        BS=max(1, LANES // block**2 // 2),
        **LAUNCH,
    )
    grad_query, grad_key = torch.empty_like(query), torch.empty_like(key)
    use_dot = _use_dot(query, channels)
    bn = _positions(query, block, block, use_dot)
    per_program, splits = _split(positions, bn, batch * heads, PROGRAMS)
    kernels.apply_pair_kernel[(batch * heads * splits,)](
        matrix,
        diagonals,
        query,
        key,
        grad_query,
        grad_key,
        query.stride(),
        key.stride(),
        grad_query.stride(),
        grad_key.stride(),
        heads,
        positions,
        per_program,
        splits,
        C=channels,
        BC=block,
        BN=bn,
        **_options((query, key, grad_query, grad_key), use_dot, num_warps=8 if block == TILE else 4),
    )
    grad_temperature = torch.empty_like(temperature).copy_(grad_temperature.sum(0).view_as(temperature))
    return grad_query, grad_key, grad_value, grad_temperature, grad_projection


def split_projection(projection: Tensor, dtype: torch.dtype, heads: int) -> Tensor:
    """Return the weight of each head ``(heads, out_channels, C)``."""
    return projection.to(dtype).unflatten(1, (heads, -1)).transpose(0, 1)


def empty_output(value: Tensor, projection: Tensor | None) -> Tensor:
    """Return room for the output, laid out as ``value`` is."""
    if projection is None:
        return torch.empty_like(value)
    batch, positions = value.shape[0], value.shape[-1]
    if value.stride(2) == 1 and value.stride(3) > 1:
        return value.new_empty(batch, positions, projection.shape[0]).mT
    return value.new_empty(batch, projection.shape[0], positions)


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
    tiles = _ceildiv(rows, bx) * _ceildiv(columns, by)
    bn = _positions(x, bx, by, use_dot)
    per_program, splits = _split(positions, bn, groups * tiles, PROGRAMS_OF_TILES if use_dot else PROGRAMS)
    products = x.new_empty(groups, splits, rows, columns, dtype=torch.float32)
    squares = products.new_empty(groups, splits, 2, rows if norms else 0)
    kernels.reduce_kernel[(groups * tiles * splits,)](
        x,
        y,
        products,
        squares,
        x.stride(),
        y.stride(),
        1 if merged else heads,
        positions,
        per_program,
        splits,
        X=rows,
        Y=columns,
        XC=x.shape[2],
        YC=y.shape[2],
        BX=bx,
        BY=by,
        BN=bn,
        USE_NORMS=norms,
        **_options((x, y), use_dot),
    )
    if use_dot and splits > 1:  # megabytes, which one program a head would be long about
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
    tiles = _ceildiv(all_rows, br)
    bn = _positions(x, br, bk, use_dot)
    per_program, splits = _split(positions, bn, groups * tiles, PROGRAMS)
    kernels.apply_kernel[(groups * tiles * splits,)](
        matrix,
        x,
        out,
        matrix.stride(),
        x.stride(),
        out.stride(),
        1 if merged else heads,
        positions,
        per_program,
        splits,
        R=all_rows,
        K=all_columns,
        OC=rows,
        XC=columns,
        BR=br,
        BK=bk,
        BN=bn,
        **_options((x, out), use_dot),
    )


def _use_dot(x: Tensor, size: int) -> bool:
    """Return whether matrices of this size are for ``tl.dot``, whose least tile of 16 wastes work on smaller ones."""
    return size > (16 if x.dtype == torch.float32 else 8)


def _block(size: int, use_dot: bool = False) -> int:
    return max(16 if use_dot else 4, min(1 << (size - 1).bit_length(), TILE))


def _positions(x: Tensor, rows: int, columns: int, use_dot: bool) -> int:
    """Return the number of positions of a tile."""
    if use_dot:
        return 32 if x.dtype == torch.float32 else 128
    return min(512, LANES // (rows * columns))


def _split(positions: int, bn: int, groups: int, programs: int) -> tuple[int, int]:
    """Return the positions of a program, a multiple of ``bn``, and the number of programs for each group."""
    splits = max(1, min(programs // groups, _ceildiv(positions, 4 * bn)))
    per_program = _ceildiv(_ceildiv(positions, splits), bn) * bn
    return per_program, _ceildiv(positions, per_program)


def _options(tensors: tuple[Tensor, ...], use_dot: bool, num_warps: int = 4) -> dict[str, object]:
    """Return the compile-time switches of a launch over maps ``(B, H, C, N)``."""
    from fusionblocks.ops.channel_attention import kernels

    dtype = tensors[0].dtype
    return {
        "ADJACENT": all(x.shape[1] == 1 or x.stride(1) == x.shape[2] * x.stride(2) for x in tensors),
        "USE_DOT": use_dot,
        "UPCAST": kernels.INTERPRETED and dtype == torch.bfloat16,  # which the interpreter multiplies as integers
        "PRECISION": _triton.input_precision() if dtype == torch.float32 else "ieee",
        "STAGES": 2 if dtype == torch.float32 and use_dot else 3,
        **LAUNCH,
        "num_warps": num_warps,
    }


def _ceildiv(size: int, tile: int) -> int:
    return -(-size // tile)
