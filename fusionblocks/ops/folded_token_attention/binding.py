"""The kernels as operators of PyTorch: shapes for tracing, launches, and the derivative.

These operators serve ``token_attention`` too. Their layout has groups, each with a feature map of its own, and within
a group heads that are summed over: map ``(B, groups, C, N)``, key ``(B, groups, heads, T, C)``, value
``(B, groups, heads, T, E)``, bias ``(B, groups, heads, T)``, result ``(B, groups, E, N)``. A folded attention has one
group; an attention that keeps its heads apart has a group per head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fusionblocks.ops import _library, _tiles, _triton
from fusionblocks.ops._tiles import Launch, ceildiv, power_of_two
from fusionblocks.ops.folded_token_attention import reference

MAX_TOKENS = 128
MAX_WIDTH = 512
PROGRAMS = 512  # about as many programs reduce over the pixels: some per multiprocessor, the same on every device


class Tiles(NamedTuple):
    """How many pixels and channels of both maps a program holds at a time, and on how many warps."""

    pixels: int
    channels: int
    values: int
    warps: int


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
    """Run the kernels on the arguments of the public function; differentiable once."""
    grouped = None if bias is None else bias[:, None]
    out: Tensor = forward_op(image[:, None], key[:, None], value[:, None], grouped, 1.0, residual)
    return out[:, 0]


# launches


def launch_forward(
    image: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, residual: bool
) -> Tensor:
    """Return ``sum_h softmax_t(scale * key @ image + bias)^T @ value``."""
    from fusionblocks.ops.folded_token_attention import kernels

    batch, groups, width, pixels = image.shape
    heads, tokens, value_width = value.shape[2:]
    out = empty_map(image, value_width)
    rows = (key.contiguous(), value.contiguous(), key if bias is None else bias.contiguous())
    switches = {"HAS_BIAS": bias is not None, "RESIDUAL": residual, **arithmetic(image)}

    def prepare(tiles: Tiles) -> Launch:
        pixel_tiles, value_tiles = ceildiv(pixels, tiles.pixels), ceildiv(value_width, tiles.values)
        sizes = (groups, heads, tokens, width, value_width, pixels, pixel_tiles, value_tiles)
        arguments = (image, *rows, out, scale, *sizes, *image.stride(), *out.stride())
        constants = {**as_constants(tiles, tokens), "NC": ceildiv(width, tiles.channels), **switches}
        return Launch(batch * groups * pixel_tiles * value_tiles, arguments, constants)

    call = (image, *rows, residual, switches["PRECISION"], bias is None)
    _tiles.launch(kernels.forward_kernel, settings(image, tokens, width, value_width), call, prepare)
    return out


def launch_backward(
    gradient: Tensor, image: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, residual: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of image, key, value and bias."""
    from fusionblocks.ops.folded_token_attention import kernels

    batch, groups, width, pixels = image.shape
    heads, tokens, value_width = value.shape[2:]
    d_image = empty_map(image, width)
    rows = (key.contiguous(), value.contiguous(), key if bias is None else bias.contiguous())
    sizes = (groups, heads, tokens, width, value_width, pixels)
    strides = (*gradient.stride(), *image.stride())
    switches = {"HAS_BIAS": bias is not None, **arithmetic(image)}
    to_try = settings(image, tokens, width, value_width, backward=True)
    call = (gradient, image, *rows, residual, switches["PRECISION"], bias is None)

    def constants(tiles: Tiles) -> dict[str, Any]:
        counts = {"NC": ceildiv(width, tiles.channels), "NE": ceildiv(value_width, tiles.values)}
        return {**as_constants(tiles, tokens), **counts, **switches}

    def of_map(tiles: Tiles) -> Launch:
        pixel_tiles = ceildiv(pixels, tiles.pixels)
        arguments = (gradient, image, *rows, d_image, scale, *sizes, pixel_tiles, *strides, *d_image.stride())
        programs = batch * groups * pixel_tiles * ceildiv(width, tiles.channels)
        return Launch(programs, arguments, {**constants(tiles), "RESIDUAL": residual})

    def of_tokens(tiles: Tiles) -> Launch:
        pixel_tiles = ceildiv(pixels, tiles.pixels)
        columns = max(ceildiv(width, tiles.channels), ceildiv(value_width, tiles.values))
        splits, tiles_a_split = split(pixel_tiles, batch * groups * heads * columns)
        parts = [
            torch.empty(batch, groups, heads, splits, tokens, *tail, dtype=torch.float32, device=image.device)
            for tail in ((width,), (value_width,), ())
        ]
        counts = (pixel_tiles, splits, columns, tiles_a_split)
        arguments = (gradient, image, *rows, *parts, scale, *sizes, *counts, *strides)
        return Launch(batch * groups * heads * splits * columns, arguments, constants(tiles), parts)

    _tiles.launch(kernels.backward_map_kernel, to_try, (*call, d_image), of_map)
    parts = _tiles.launch(kernels.backward_tokens_kernel, to_try, call, of_tokens)
    d_key, d_value, d_bias = (part.sum(3).to(image.dtype) for part in parts)
    return d_image, d_key, d_value, d_bias


def split(tiles: int, others: int) -> tuple[int, int]:
    """Return how many splits share the tiles of pixels, none empty, and the tiles of each."""
    each = ceildiv(tiles, max(1, PROGRAMS // others))
    return ceildiv(tiles, each), each


def settings(image: Tensor, tokens: int, width: int, value_width: int, backward: bool = False) -> tuple[Tiles, ...]:
    """Return the tiles to try, the best first; all tokens of a head lie in each."""
    wide = image.dtype == torch.float32
    block = block_of(tokens)
    widest = 64 if block == 128 or backward and block == 64 else 128
    if backward and wide:
        widest = 32
    channels, values = (min(widest, max(16, power_of_two(size))) for size in (width, value_width))
    large = block >= 64 or max(channels, values) >= (64 if wide else 128)
    best = Tiles(32 if wide and (backward or block >= 64) else 64, channels, values, 8 if large else 4)
    return tuple(
        dict.fromkeys(
            (
                best,
                best._replace(pixels=32),
                best._replace(pixels=32, warps=4),
                Tiles(32, min(channels, 32), min(values, 32), 8),
                Tiles(16, 16, 16, 8),
                Tiles(16, 16, 16, 4),
            )
        )
    )


def as_constants(tiles: Tiles, tokens: int) -> dict[str, int]:
    """Return the sizes of tiles and the options of a launch with them."""
    sizes = {"BN": tiles.pixels, "BT": block_of(tokens), "BC": tiles.channels, "BE": tiles.values}
    return {**sizes, "num_warps": tiles.warps, "num_stages": 1}


def arithmetic(image: Tensor) -> dict[str, str | bool]:
    """Return the compile-time switches of products and sums."""
    # Three TF32 products of the halves of a float32 keep 22 of its 24 bits, on the matrix units. Without these a tile's
    # operands would not fit in registers.
    precision = "tf32" if _triton.input_precision() == "tf32" else "tf32x3"
    # the interpreter multiplies the raw bits of bfloat16
    upcast = _triton.interpreting() and image.dtype == torch.bfloat16
    return {"PRECISION": precision, "UPCAST": upcast, "enable_fp_fusion": True}


def block_of(tokens: int) -> int:
    """Return the rows of a tile that holds so many tokens."""
    return max(16, power_of_two(tokens))


# what PyTorch knows of them


def empty_map(like: Tensor, width: int) -> Tensor:
    """Return an uninitialised ``(B, groups, width, N)`` whose pixels or channels lie together as those of ``like``."""
    batch, groups, _, pixels = like.shape
    if like.stride(2) == 1 and like.stride(3) != 1:
        return like.new_empty((batch, groups, pixels, width)).mT
    return like.new_empty((batch, groups, width, pixels))


def empty_results(
    image: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, residual: bool
) -> Tensor:
    """Allocate a result, in memory as the map lies."""
    return empty_map(image, value.shape[-1])


def _empty_gradients(
    gradient: Tensor, image: Tensor, key: Tensor, value: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    tokens = (key.new_empty(key.shape), value.new_empty(value.shape), key.new_empty(key.shape[:-1]))
    return empty_map(image, image.shape[2]), *tokens


def _grouped(image: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, residual: bool) -> Tensor:
    """Compute the reference of all groups, as so many pictures."""
    image, key, value = (x.flatten(0, 1) for x in (image, key, value))
    bias = None if bias is None else bias.flatten(0, 1)
    return reference.folded_token_attention(image, scale * key, value, bias, residual)


def _plain_forward(
    image: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, residual: bool
) -> Tensor:
    room = empty_map(image, value.shape[-1])
    return room.copy_(_grouped(image, key, value, bias, scale, residual).unflatten(0, image.shape[:2]))


def _plain_backward(gradient: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    gradients = _library.derivative(_grouped, inputs, [gradient.flatten(0, 1)])
    return _library.fill(_empty_gradients(gradient, *inputs), gradients)


forward_op = _library.define(
    "folded_token_attention_forward(Tensor image, Tensor key, Tensor value, Tensor? bias, float scale, bool residual) "
    "-> Tensor",
    launch=launch_forward,
    plain=_plain_forward,
    shapes=empty_results,
)
backward_op = _library.define(
    "folded_token_attention_backward(Tensor gradient, Tensor image, Tensor key, Tensor value, Tensor? bias, "
    "float scale, bool residual) -> (Tensor, Tensor, Tensor, Tensor)",
    launch=launch_backward,
    plain=_plain_backward,
    shapes=_empty_gradients,
)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    image, key, value, bias, ctx.scale, ctx.residual = inputs
    ctx.save_for_backward(image, key, value, bias)


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    image, key, value, bias = ctx.saved_tensors
    d_image, d_key, d_value, d_bias = backward_op(gradient, image, key, value, bias, ctx.scale, ctx.residual)
    return d_image, d_key, d_value, None if bias is None else d_bias, None, None


_library.differentiate(forward_op, save=_save, gradients=_gradients)
