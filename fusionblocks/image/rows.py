"""Maps by rows: what is too large to hold at once is worked out a strip at a time, and comes out the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor


class WholeOnlyError(ValueError):
    """Something can only be worked out of a picture that is there whole.

    Args:
        reason: What, and why.

    No example: raised by networks that are asked for a picture by rows and need it whole.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


class Shape(NamedTuple):
    """Sizes of a map.

    Args:
        batch: Pictures.
        height: Rows.
        width: Columns.

    Example:
        >>> from fusionblocks.image import Shape
        >>> Shape(batch=1, height=480, width=640).width
        640
    """

    batch: int
    height: int
    width: int


class Rows:
    """A map ``(B, C, H, W)`` of which any rows can be had, worked out when they are asked for.

    What is made of it with :meth:`map` is such a map again, so a chain of operations costs the memory of a few strips.
    An operation that sees ``reach`` rows around a row gets that many more, but none beyond the map's border, so that
    paddings act where they do on the whole map: the result is the whole result, up to rounding.

    Args:
        read: From the first row and the one after the last to the rows ``(B, C, last - first, W)``.
        shape: Its batch, height and width.
        strip: How many rows :meth:`strips` reads at a time.

    Example:
        >>> import torch
        >>> from fusionblocks.image import Rows
        >>> picture = torch.rand(1, 1, 40, 8)
        >>> rows = Rows.of(picture, strip=16).map(torch.nn.Conv2d(1, 1, 3, padding=1), reach=1)
        >>> [tuple(part.shape) for _, part in rows.strips()]
        [(1, 1, 16, 8), (1, 1, 16, 8), (1, 1, 8, 8)]
    """

    def __init__(self, read: Callable[[int, int], Tensor], shape: Shape, strip: int) -> None:
        self.read = read
        self.shape = shape
        self.strip = max(strip, 1)

    @classmethod
    def of(cls, x: Tensor, strip: int) -> Rows:
        """Return the rows of a map ``(B, C, H, W)`` that is there."""
        return cls(lambda first, last: x[:, :, first:last], Shape(x.shape[0], x.shape[2], x.shape[3]), strip)

    def map(self, function: Callable[..., Tensor], *others: Rows, reach: int = 0, step: int = 1) -> Rows:
        """Return what a function makes of this map and others of its size.

        Args:
            function: From maps ``(B, *, H, W)`` to a map of their height and width.
            *others: Its further arguments.
            reach: Rows above and below a row that the function sees.
            step: It gets rows from a multiple of this on.
        """
        height = self.shape.height

        def read(first: int, last: int) -> Tensor:
            above, below = max(first - reach, 0) // step * step, min(last + reach, height)
            result = function(*(rows.read(above, below) for rows in (self, *others)))
            return result[:, :, first - above : last - above]

        return Rows(read, self.shape, self.strip)

    def read_repeated(self, rows: range) -> Tensor:
        """Return rows of which those beyond the map's border are its border row, repeated."""
        last = self.shape.height - 1
        first, end = min(max(rows.start, 0), last), min(max(rows.stop - 1, 0), last) + 1
        x = self.read(first, end)
        if rows == range(first, end):
            return x
        return x.index_select(2, torch.arange(rows.start, rows.stop, device=x.device).clamp(0, last) - first)

    def strips(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield all rows from the top down, a strip at a time: which they are, and the rows."""
        for first in range(0, self.shape.height, self.strip):
            last = min(first + self.strip, self.shape.height)
            yield slice(first, last), self.read(first, last)

    def in_strips(self, strip: int) -> Rows:
        """Return the same map, in strips of another height."""
        return Rows(self.read, self.shape, strip)

    def kept(self, most: float = float("inf")) -> Rows:
        """Return the same map, held in memory from the first time that it is asked for.

        Args:
            most: Bytes above which it is worked out anew each time instead.
        """
        source, undecided = self, True

        def read(first: int, last: int) -> Tensor:
            nonlocal source, undecided
            if undecided and source.size() <= most:
                # once the map is there, what it was made of is let go
                source = Rows.of(source.whole(), source.strip)
            undecided = False
            return source.read(first, last)

        return Rows(read, self.shape, self.strip)

    def size(self) -> int:
        """Return the bytes of the whole map."""
        row = self.read(0, 1)
        return row.numel() * row.element_size() * self.shape.height

    def whole(self) -> Tensor:
        """Return the whole map ``(B, C, H, W)``, worked out strip by strip."""
        if self.strip >= self.shape.height:
            return self.read(0, self.shape.height)
        result: Tensor | None = None
        for rows, part in self.strips():
            if result is None:
                result = torch.empty(
                    (*part.shape[:2], *self.shape[1:]),
                    dtype=part.dtype,
                    device=part.device,
                    memory_format=_layout_of(part),
                )
            result[:, :, rows] = part
        assert result is not None  # noqa: S101 -- a map has at least one row
        return result


def strip_rows(width: int, pixels: int) -> int:
    """Return how many rows of some width have about so many pixels, at least eight."""
    return max(pixels // width, 8)


#: A map that is there, or one that is known by rows. What takes one or the other answers in kind; written ``Any``,
#: because no type checker follows a chain of both.
Map = Any


def each(function: Callable[..., Tensor], *maps: Map) -> Map:
    """Return what a function of single pixels makes of maps that are there, or of maps by rows."""
    return function(*maps) if isinstance(maps[0], Tensor) else maps[0].map(function, *maps[1:])


def keep(x: Map, most: float = float("inf")) -> Map:
    """Return a map that is there as it is, one by rows to be worked out once and held, if it has not too many bytes."""
    return x if isinstance(x, Tensor) else x.kept(most)


def _layout_of(x: Tensor) -> torch.memory_format:
    return torch.channels_last if x.stride(1) == 1 and x.shape[1] > 1 else torch.contiguous_format
