"""Chains of operations run strip by strip, so that what lies between them stays in the processor's cache.

An operation that sees ``halo`` rows around a row can run on a strip of rows with the halo attached; the rows of the
halo are computed twice and thrown away. At the picture's own border a strip has no halo there, so paddings act where
they did. Maps are laid out channels-last, in which a strip is one piece of memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result", bound=Tensor | tuple[Tensor, ...])

PIXELS = 10240
"""Pixels of a strip, of the order that a core's cache holds at 64 channels of float32."""
MIN_ROWS = 8


class Strip(NamedTuple):
    """Rows ``top`` to ``bottom``, and with their halo ``first`` to ``last``."""

    top: int
    bottom: int
    first: int
    last: int

    def of(self, x: Tensor) -> Tensor:
        """Return the strip of a map, halo included."""
        return x[:, :, self.first : self.last]

    def inner(self, x: Tensor) -> Tensor:
        """Return the rows of the strip from what was computed of it, without the halo."""
        return x[:, :, self.top - self.first : self.bottom - self.first]


def strips(x: Tensor, *, halo: int, factor: int = 1) -> Iterator[Strip]:
    """Yield the strips of a map, ``factor`` times as high as usual."""
    rows, height = _rows(x, factor), x.shape[2]
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        yield Strip(top, bottom, max(top - halo, 0), min(bottom + halo, height))


def pays(x: Tensor) -> bool:
    """Whether strips serve a map: on a CPU, in eager inference, and if it is higher than one strip."""
    return (
        x.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not (torch.is_grad_enabled() and x.requires_grad)
        and x.shape[2] > _rows(x, 1)
    )


def in_strips(
    function: Callable[..., Result], *maps: Tensor, halo: int | None, factor: int = 1, onto: Sequence[Tensor] = ()
) -> Result:
    """Return ``function(*maps)``, which keeps height and width, worked out strip by strip where that pays.

    Args:
        function: From maps ``(B, *, H, W)`` to one map or a named tuple of maps of that height and width.
        *maps: Its arguments, all of the same height and width.
        halo: Rows above and below a row that ``function`` sees, its reach; with None it sees the maps whole.
        factor: How many times higher than usual the strips are: a long chain has a large halo.
        onto: Maps that may be overwritten with the results, arguments among them: memory that is used again need not
            be cleared by the system first.
    """
    if halo is None or not pays(maps[0]):
        return function(*maps)
    results = ((strip, function(*(strip.of(x) for x in maps))) for strip in strips(maps[0], halo=halo, factor=factor))
    result: Any  # one map, or a named tuple of maps
    strip, result = next(results)
    outputs: list[Any] = [
        empty_map(part, maps[0].shape[2]) if old is None else old for part, old in _paired(_parts(result), onto)
    ]
    for after in results:  # a strip is written when the next one has read its halo
        _write(outputs, strip, result)
        strip, result = after
    _write(outputs, strip, result)
    return outputs[0] if isinstance(result, Tensor) else type(result)(*outputs)


def _paired(parts: Sequence[Tensor], onto: Sequence[Tensor]) -> list[tuple[Tensor, Tensor | None]]:
    """Return each part of a result with the map that it may be written to, None if that one does not fit."""

    def fits(part: Tensor, old: Tensor) -> bool:
        return old.dtype == part.dtype and (*old.shape[:2], old.shape[3]) == (*part.shape[:2], part.shape[3])

    return [(part, old if old is not None and fits(part, old) else None) for part, old in zip_longest(parts, onto)]


def _parts(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else result


def _write(outputs: Sequence[Tensor], strip: Strip, result: Tensor | tuple[Tensor, ...]) -> None:
    for output, part in zip(outputs, _parts(result), strict=True):
        output[:, :, strip.top : strip.bottom] = strip.inner(part)


def mean_in_strips(function: Callable[..., Tensor], *maps: Tensor) -> Tensor:
    """Return the mean over the picture, ``(B, C, 1, 1)``, of what ``function`` makes of maps ``(B, *, H, W)``.

    Args:
        function: Sees one row.
        *maps: Its arguments, all of the same height and width.
    """
    if not pays(maps[0]):
        return function(*maps).mean(dim=(2, 3), keepdim=True)
    total: Any = 0
    for strip in strips(maps[0], halo=0):
        part = function(*(strip.of(x) for x in maps))
        total = total + part.sum(dim=(2, 3), keepdim=True, dtype=torch.promote_types(part.dtype, torch.float32))
    return (total / maps[0][0, 0].numel()).to(maps[0].dtype)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance over the picture, each ``(B, C, 1, 1)`` in float32 or better."""
    exact = torch.promote_types(x.dtype, torch.float32)
    if not pays(x):
        variance, mean = torch.var_mean(x.to(exact), dim=(2, 3), correction=0, keepdim=True)
        return mean, variance
    total: Any = 0
    squares: Any = 0
    for strip in strips(x, halo=0):
        part = strip.of(x).double()
        total = total + part.sum(dim=(2, 3), keepdim=True)
        squares = squares + part.square().sum(dim=(2, 3), keepdim=True)
    mean = total / x[0, 0].numel()
    return mean.to(exact), (squares / x[0, 0].numel() - mean.square()).clamp_min(0).to(exact)


def empty_map(like: Tensor, height: int) -> Tensor:
    """Return an uninitialised channels-last map of ``height`` rows, otherwise like a strip."""
    batch, channels, _, width = like.shape
    return torch.empty(
        (batch, channels, height, width), dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )


def _rows(x: Tensor, factor: int) -> int:
    pixels = PIXELS * torch.float32.itemsize // x.element_size()
    return factor * max(MIN_ROWS, pixels // (x.shape[0] * x.shape[3]))
