"""The kernels as operators of PyTorch: shapes for tracing, launches, and the derivative.

One stream or two that share a key: ``dual_cross_attention`` has operators of its own and launches what is here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fusionblocks.ops import _library, _tiles, _triton
from fusionblocks.ops._tiles import Launch, ceildiv, power_of_two
from fusionblocks.ops.cross_attention import reference

WIDEST = 128
LOG2E = math.log2(math.e)
PROGRAMS_PER_SM = 2  # that fit at a time
MOST_SPLITS = 8
FEWEST_TILES = 4  # key tiles of one split


class Tiles(NamedTuple):
    """How many queries and keys a program holds at a time, and on how many warps and pipeline stages."""

    queries: int
    keys: int
    warps: int
    stages: int


# The best tiles by multiplication (see ``product``) and padded width, whichever of d and dv is larger: the largest that
# fit two streams with the compilers they were made with, into the 99 KiB of shared memory of every device from compute
# capability 8.0 on, "wgmma" into Hopper's 227. Where they do not fit, smaller ones serve.
FORWARD = {
    "half": {16: Tiles(64, 64, 4, 3), 32: Tiles(64, 64, 4, 3), 64: Tiles(64, 32, 4, 3), 128: Tiles(64, 32, 8, 3)},
    "wgmma": {16: Tiles(64, 64, 4, 3), 32: Tiles(64, 64, 4, 3), 64: Tiles(64, 64, 4, 3), 128: Tiles(64, 64, 4, 2)},
    "tf32": {16: Tiles(64, 32, 4, 3), 32: Tiles(64, 32, 4, 3), 64: Tiles(64, 32, 4, 2), 128: Tiles(64, 16, 8, 2)},
    "tf32x3": {16: Tiles(64, 32, 4, 2), 32: Tiles(64, 32, 4, 2), 64: Tiles(64, 16, 4, 2), 128: Tiles(16, 16, 4, 2)},
}
KEY_VALUE_GRADIENT = {
    "half": {16: Tiles(64, 64, 4, 2), 32: Tiles(64, 64, 4, 2), 64: Tiles(32, 64, 4, 2), 128: Tiles(32, 64, 8, 2)},
    "wgmma": {16: Tiles(64, 64, 4, 2), 32: Tiles(64, 64, 4, 2), 64: Tiles(64, 64, 4, 2), 128: Tiles(32, 64, 8, 2)},
    "tf32": {16: Tiles(32, 64, 4, 2), 32: Tiles(32, 64, 4, 2), 64: Tiles(16, 64, 4, 2), 128: Tiles(16, 32, 4, 1)},
    "tf32x3": {16: Tiles(32, 32, 4, 2), 32: Tiles(32, 32, 4, 2), 64: Tiles(16, 32, 4, 1), 128: Tiles(16, 16, 4, 1)},
}
QUERY_GRADIENT = {
    "half": {16: Tiles(64, 64, 4, 2), 32: Tiles(64, 64, 4, 2), 64: Tiles(64, 32, 4, 2), 128: Tiles(64, 32, 8, 1)},
    "wgmma": {16: Tiles(64, 64, 4, 2), 32: Tiles(64, 64, 4, 2), 64: Tiles(64, 64, 4, 2), 128: Tiles(64, 32, 8, 2)},
    "tf32": {16: Tiles(64, 32, 4, 2), 32: Tiles(64, 32, 4, 2), 64: Tiles(64, 16, 4, 2), 128: Tiles(32, 16, 4, 1)},
    "tf32x3": {16: Tiles(32, 32, 4, 2), 32: Tiles(32, 32, 4, 2), 64: Tiles(32, 16, 4, 1), 128: Tiles(16, 16, 8, 1)},
}

SMALLER = (Tiles(32, 32, 8, 1), Tiles(32, 16, 8, 1), Tiles(16, 16, 8, 1))
ROWS = (64, 32, 16)  # that a program of the small kernels holds


def refuse(tensors: Sequence[Tensor]) -> str | None:
    """Return why the kernels cannot serve a call with these tensors, queries first and values last, or None."""
    reason = _triton.refuse(tensors)
    if reason is not None or not tensors:
        return reason
    width = max(tensors[0].shape[-1], tensors[-1].shape[-1])
    return f"a head width of {width} is more than {WIDEST}" if width > WIDEST else None


def cross_attention(query: Tensor, key: Tensor, value: Tensor, scale: float | None = None) -> Tensor:
    """Run the kernels on the arguments of the public function; differentiable once."""
    factor = query.shape[-1] ** -0.5 if scale is None else float(scale)
    out: Tensor = forward_op(query, key, value, factor)[0]
    return out


# launches


@cache
def to_try(best: Tiles) -> tuple[Tiles, ...]:
    """Return the tiles to try: the best, and those that are not larger."""
    size = best.queries * best.keys
    return tuple(dict.fromkeys([best, *(tiles for tiles in SMALLER if tiles.queries * tiles.keys <= size)]))


def padded(width: int) -> int:
    """Return the width of a tile: a power of two that the matrix units take."""
    return max(16, power_of_two(width))


def empty_like_rows(like: Tensor, width: int) -> Tensor:
    """Allocate ``(B, heads, N, width)`` in the order of memory of ``like``: rows, a feature map, or channels last."""
    batch, heads, positions, _ = like.shape
    if like.stride(2) == 1 and like.stride(3) != 1:  # b (heads d) (h w)
        strides = (heads * width * positions, width * positions, 1, positions)
    elif like.stride(3) == 1 and like.stride(1) < like.stride(2):  # b (h w) (heads d)
        strides = (positions * heads * width, width, heads * width, 1)
    else:  # b heads (h w) d
        strides = (heads * positions * width, positions * width, width, 1)
    return like.new_empty_strided((batch, heads, positions, width), strides)


def alike(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the tensors, of one shape, with one set of strides; copies only where theirs differ."""
    first = tensors[0]
    dims = [dim for dim in range(first.ndim) if first.shape[dim] != 1]
    if all(tensor.stride(dim) == first.stride(dim) for tensor in tensors for dim in dims):
        return list(tensors)
    return [tensor.contiguous() for tensor in tensors]


def launch_streams(
    queries: Sequence[Tensor], key: Tensor, values: Sequence[Tensor], scale: float, *, splits: int | None = None
) -> tuple[list[Tensor], Tensor]:
    """Attend from one stream or two.

    Args:
        queries: One or two tensors ``(B, heads, Nq, d)``.
        key: ``(B, heads, Nk, d)``.
        values: As many tensors ``(B, heads, Nk, dv)``.
        scale: Factor of the products.
        splits: Into how many parts the keys are split; None is as many as the device needs to be full.

    Returns:
        The results ``(B, heads, Nq, dv)``, and for the backward pass ``(streams, B, heads, Nq)``: the logarithm of the
        partition sums, to base 2, in float32.
    """
    from fusionblocks.ops.cross_attention import kernels

    outs = [empty_like_rows(queries[0], values[0].shape[-1]) for _ in queries]
    call = _Call(queries, key, values)
    lse = torch.empty((call.streams, *key.shape[:2], call.queries), dtype=torch.float32, device=key.device)

    def attend(tiles: Tiles) -> Launch:
        rows, key_tiles = call.count(tiles.queries, call.queries), ceildiv(call.keys, tiles.keys)
        wanted = _splits(rows, key_tiles, key.device) if splits is None else splits
        per_split = ceildiv(key_tiles, min(wanted, key_tiles))
        count = ceildiv(key_tiles, per_split)
        if count == 1:
            parts, lses, strides = outs, lse, (*outs[0].stride(), 0)
        else:
            lses = lse.new_empty((call.streams, count, *lse.shape[1:]))
            whole = lse.new_empty((*lses.shape, call.value_width))
            parts, strides = list(whole), (*whole.stride()[2:], whole.stride(1))
        arguments = (
            *call.pair(call.query), call.key, *call.pair(call.value), *call.pair(parts), lses, scale * LOG2E,
            *call.sizes, count, per_split, call.query[0].stride(), call.key.stride(), call.value[0].stride(), strides,
        )  # fmt: skip
        constants = {"DUAL": call.dual, "RAGGED": call.keys % tiles.keys != 0, **call.constants(tiles)}
        return Launch(rows * count, arguments, constants, (parts, lses, tiles.queries))

    parts, lses, most = _tiles.launch(kernels.forward_kernel, call.settings(FORWARD), (*call.inputs, splits), attend)
    for stream, out in enumerate(outs if lses is not lse else ()):
        call.over_rows(
            kernels.join_kernel, most,
            parts[stream], lses[stream], out, lse[stream], call.heads_of_all, call.heads, call.queries,
            lses.shape[1], out.stride(),
        )  # fmt: skip
    return outs, lse


def launch_gradients(
    grads: Sequence[Tensor],
    queries: Sequence[Tensor],
    key: Tensor,
    values: Sequence[Tensor],
    outs: Sequence[Tensor],
    lse: Tensor,
    scale: float,
) -> tuple[list[Tensor], Tensor, list[Tensor]]:
    """Return the gradients of the queries, the key and the values, in their layouts.

    Args:
        grads: Gradients of the results.
        queries: As in the forward pass.
        key: As in the forward pass.
        values: As in the forward pass.
        outs: The forward pass's results.
        lse: Its ``(streams, B, heads, Nq)``.
        scale: As in the forward pass.
    """
    from fusionblocks.ops.cross_attention import kernels

    query_grads = [empty_like_rows(queries[0], key.shape[-1]) for _ in queries]
    key_grad = empty_like_rows(key, key.shape[-1])
    value_grads = [empty_like_rows(values[0], values[0].shape[-1]) for _ in values]
    grads = alike(grads)
    lse = lse.contiguous()
    delta = torch.empty_like(lse)

    call = _Call(queries, key, values)
    strides = (call.query[0].stride(), call.key.stride(), call.value[0].stride(), grads[0].stride())
    inputs = (*call.pair(call.query), call.key, *call.pair(call.value), *call.pair(grads), lse, delta)

    def key_value_gradient(tiles: Tiles) -> Launch:
        arguments = (
            *inputs, key_grad, *call.pair(value_grads), scale, scale * LOG2E, *call.sizes, *strides,
            key_grad.stride(), value_grads[0].stride(),
        )  # fmt: skip
        return Launch(call.count(tiles.keys, call.keys), arguments, {"DUAL": call.dual, **call.constants(tiles)})

    def query_gradient(tiles: Tiles) -> Launch:
        arguments = (
            *inputs, *call.pair(query_grads), scale, scale * LOG2E, *call.sizes, *strides, query_grads[0].stride(),
        )  # fmt: skip
        constants = {"DUAL": call.dual, "RAGGED": call.keys % tiles.keys != 0, **call.constants(tiles)}
        return Launch(call.count(tiles.queries, call.queries), arguments, constants)

    seen = (call.product, call.dual, *inputs)
    for stream, (out, grad) in enumerate(zip(outs, grads, strict=True)):
        call.over_rows(
            kernels.delta_kernel, ROWS[0],
            out, grad, delta[stream], call.heads, call.queries, out.stride(), grad.stride(),
        )  # fmt: skip
    _tiles.launch(kernels.key_value_gradient_kernel, call.settings(KEY_VALUE_GRADIENT), seen, key_value_gradient)
    _tiles.launch(kernels.query_gradient_kernel, call.settings(QUERY_GRADIENT), seen, query_gradient)
    return query_grads, key_grad, value_grads


class _Call:
    """Sizes and options of one call."""

    def __init__(self, queries: Sequence[Tensor], key: Tensor, values: Sequence[Tensor]) -> None:
        self.query, self.key, self.value = alike(queries), key, alike(values)
        self.streams, self.dual = len(queries), len(queries) == 2
        self.batch, self.heads, self.keys, self.width = key.shape
        self.heads_of_all = self.batch * self.heads
        self.queries, self.value_width = queries[0].shape[2], values[0].shape[-1]
        self.sizes = (self.heads_of_all, self.heads, self.queries, self.keys)
        self.upcast = _triton.interpreting() and key.dtype == torch.bfloat16
        self.product = product(key.dtype, key.device)
        self.inputs = (self.product, key, *self.query, *self.value)

    def settings(self, table: dict[str, dict[int, Tiles]]) -> tuple[Tiles, ...]:
        return to_try(table[self.product][padded(max(self.width, self.value_width))])

    def constants(self, tiles: Tiles) -> dict[str, Any]:
        """Return the constants and launch options that the three large kernels have in common."""
        return {
            "D": self.width,
            "DV": self.value_width,
            "BM": tiles.queries,
            "BN": tiles.keys,
            "BD": padded(self.width),
            "BDV": padded(self.value_width),
            "PREC": self.product if self.key.dtype == torch.float32 else "ieee",
            "UPCAST": self.upcast,
            "num_warps": tiles.warps,
            "num_stages": tiles.stages,
            "enable_fp_fusion": True,
        }

    def over_rows(self, kernel: Any, most: int, *arguments: Any) -> None:
        """Launch one of the small kernels, each program of which has some of the queries."""

        def prepare(rows: int) -> Launch:
            constants = {"DV": self.value_width, "BM": rows, "BDV": padded(self.value_width)}
            options = {"num_warps": 4, "enable_fp_fusion": True}
            return Launch(self.count(rows, self.queries), arguments, {**constants, **options})

        _tiles.launch(kernel, tuple(rows for rows in ROWS if rows <= most), arguments, prepare)

    def count(self, tile: int, positions: int) -> int:
        """Return the number of tiles of all heads."""
        return ceildiv(positions, tile) * self.heads_of_all

    def pair(self, tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return both streams' tensors; one stream's stands in for the second, which is not read."""
        return tensors[0], tensors[-1]


def product(dtype: torch.dtype, device: torch.device) -> str:
    """Return how matrices are multiplied: a row of the tables.

    Float32's accuracy, up to a small factor, comes from three TF32 products: those run on the matrix units, which an
    exact product does not use.
    """
    if dtype == torch.float32:
        return "tf32" if _triton.input_precision() == "tf32" else "tf32x3"
    hopper = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] == 9
    return "wgmma" if hopper else "half"


def _splits(programs: int, key_tiles: int, device: torch.device) -> int:
    """Return into how many parts the keys are split so that a device with idle processors fills up."""
    if device.type != "cuda":
        return 1
    processors = torch.cuda.get_device_properties(device).multi_processor_count
    return max(1, min(PROGRAMS_PER_SM * processors // programs, key_tiles // FEWEST_TILES, MOST_SPLITS))


# what PyTorch knows of them


def empty_lse(query: Tensor, streams: int) -> Tensor:
    """Allocate ``(streams, B, heads, Nq)``, in float32 unless the tensors are of float64."""
    dtype = torch.promote_types(query.dtype, torch.float32)
    return torch.empty((streams, *query.shape[:3]), dtype=dtype, device=query.device)


def empty_results(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Allocate a result, in memory as the query lies, and the logarithms."""
    return empty_like_rows(query, value.shape[-1]), empty_lse(query, 1)


def _empty_gradients(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return tuple(empty_like_rows(x, x.shape[-1]) for x in (query, key, value))


def launch_forward(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Return the result of one stream and the logarithms of its partition sums."""
    (out,), lse = launch_streams([query], key, [value], scale)
    return out, lse


def launch_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and value of one stream."""
    (d_query,), d_key, (d_value,) = launch_gradients([grad], [query], key, [value], [out], lse, scale)
    return d_query, d_key, d_value


def _plain_forward(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, ...]:
    results = reference.cross_attention(query, key, value, scale), reference.partition(query, key, scale)
    return _library.fill(empty_results(query, key, value, scale), results)


def _plain_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, scale: float
) -> tuple[Tensor, ...]:
    gradients = _library.derivative(reference.cross_attention, (query, key, value, scale), [grad])
    return _library.fill(_empty_gradients(grad, query, key, value), gradients)


forward_op = _library.define(
    "cross_attention_forward(Tensor query, Tensor key, Tensor value, float scale) -> (Tensor, Tensor)",
    launch=launch_forward,
    plain=_plain_forward,
    shapes=empty_results,
)
backward_op = _library.define(
    "cross_attention_backward(Tensor grad, Tensor query, Tensor key, Tensor value, Tensor out, Tensor lse, "
    "float scale) -> (Tensor, Tensor, Tensor)",
    launch=launch_backward,
    plain=_plain_backward,
    shapes=_empty_gradients,
)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, ctx.scale = inputs
    ctx.save_for_backward(query, key, value, *output)


def _gradients(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return *backward_op(grad, *ctx.saved_tensors, ctx.scale), None


_library.differentiate(forward_op, save=_save, gradients=_gradients)
