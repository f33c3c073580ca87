"""Kinds of blocks: what a block takes and returns, so that one can stand in for another."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from fusionblocks import blocks
from fusionblocks._support.checks import check_positive
from fusionblocks._support.names import closest
from fusionblocks.blocks.reaching import in_a_row

#: What the blocks of a kind take and return. Maps are ``(B, C, H, W)``, and a block keeps height and width.
KINDS = {
    "map": "x -> x",
    "merge": "infrared, visible -> x",
    "exchange": "first, second -> first, second",
    "modulate": "x, semantic -> x",
    "head": "x -> picture",
    "invertible": "has the method inverse, beside its other kind",
}


def list_blocks(kind: str | None = None) -> list[str]:
    """Return the names of the blocks, sorted: all, or those of a kind, any of which can stand in for another.

    =============  =====================================  ===========================================================
    kind           takes and returns                      built by
    =============  =====================================  ===========================================================
    ``map``        a map; another one                     ``Block(channels)`` or ``Block(in_channels, out_channels)``
    ``merge``      infrared and visible maps; one map     the same
    ``exchange``   the halves of a map; both halves       ``Block(channels)``, the width of both halves together
    ``modulate``   a map, and semantics, ``(B, S)`` or    ``Block(channels, semantic_channels=S)``
                   ``(B, S, h, w)``; a map
    ``head``       a map; a picture                       ``Block(channels, out_channels)``
    =============  =====================================  ===========================================================

    Blocks with an exact ``inverse`` are ``invertible`` beside. A block of no kind says why in ``stands_alone``.

    Args:
        kind: One of the above; None for all blocks.

    Raises:
        ValueError: If there is no such kind.

    Example:
        >>> from fusionblocks import list_blocks
        >>> list_blocks(kind="merge")
        ['AdaptiveFusion', 'DualCrossAttention', 'PSFM', 'SDFM']
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}{closest(str(kind), list(KINDS))}; known: {', '.join(KINDS)}")
    classes = {name: getattr(blocks, name) for name in blocks.__all__}
    found = {name: cls for name, cls in classes.items() if isinstance(cls, type) and issubclass(cls, nn.Module)}
    return sorted(name for name, cls in found.items() if kind is None or _is_of(cls, kind))


def _is_of(cls: type, kind: str) -> bool:
    return hasattr(cls, "inverse") if kind == "invertible" else getattr(cls, "kind", None) == kind


def create_block(name: str, in_channels: int, out_channels: int | None = None, **options: Any) -> nn.Module:
    """Return a block by its name, at any two widths.

    A block whose result is as wide as its input is followed by a 1x1 convolution where the widths differ. So every
    map and every merge fits every place of its kind.

    Args:
        name: One of :func:`list_blocks`.
        in_channels: Width of what it takes; of an exchange the width of both halves together.
        out_channels: Width of what it returns; None: ``in_channels``, or the default of a head.
        **options: Further arguments of the block.

    Raises:
        ValueError: If there is no such block (the closest match is offered), a width does not fit it, or an exchange
            or a modulation is asked for another width.

    Example:
        >>> import torch
        >>> from fusionblocks import create_block
        >>> merge = create_block("AdaptiveFusion", 8, 12).eval()
        >>> merge(torch.rand(1, 8, 5, 7), torch.rand(1, 8, 5, 7)).shape
        torch.Size([1, 12, 5, 7])
    """
    known = list_blocks()
    if name not in known:
        raise ValueError(f"unknown block {name!r}{closest(str(name), known)}; known: {', '.join(known)}")
    cls = getattr(blocks, name)
    if out_channels is None:
        return cls(in_channels, **options)
    widths = [p.name for p in inspect.signature(cls).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD][:2]
    if widths[1:] and widths[1] != "semantic_channels":
        return cls(in_channels, out_channels, **options)
    check_positive(out_channels=out_channels)
    if out_channels == in_channels:
        return cls(in_channels, **options)
    if getattr(cls, "kind", None) not in ("map", "merge"):
        raise ValueError(f"{name} returns as many channels as it takes, got {in_channels} and {out_channels}")
    return Projected(cls(in_channels, **options), in_channels, out_channels)


class Projected(nn.Module):
    """A block with a 1x1 convolution behind it, so that its result has another width.

    Args:
        block: A block that returns one map.
        in_channels: Width of what the block returns.
        channels: Width ``C`` of the result.

    Example:
        >>> import torch
        >>> from fusionblocks import SceneMask
        >>> from fusionblocks.blocks.kinds import Projected
        >>> Projected(SceneMask(8), 8, 12)(torch.rand(2, 8, 5, 7)).shape
        torch.Size([2, 12, 5, 7])
    """

    def __init__(self, block: nn.Module, in_channels: int, channels: int) -> None:
        super().__init__()
        self.kind = getattr(block, "kind", None)
        self.in_channels, self.channels = in_channels, channels
        self.block = block
        self.project = nn.Conv2d(in_channels, channels, 1)

    def reach(self) -> int | None:
        """Return the rows around a row that are seen, see :func:`fusionblocks.blocks.reach`."""
        return in_a_row(self.block, self.project)

    def forward(self, *maps: Tensor, **named: Tensor) -> Tensor:
        """Return the block's result, ``(B, C, H, W)``."""
        return self.project(self.block(*maps, **named))


def inputs_of(block: nn.Module, *, batch: int = 1, height: int = 8, width: int = 9) -> tuple[Tensor, ...]:
    """Return drawn inputs of a block, as its kind takes them.

    Args:
        block: A block of a kind, which tells its widths.
        batch: Size of the batch.
        height: Height of the maps.
        width: Width of the maps.

    Raises:
        ValueError: If the block has no kind.
    """
    size = (height, width)
    reference: Any = next(iter(block.parameters()), torch.empty(0))

    def drawn(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, dtype=reference.dtype, device=reference.device)

    kind, widths = getattr(block, "kind", None), vars(block)
    into: Any = widths.get("in_channels", widths.get("channels"))
    if kind in ("map", "head"):
        return (drawn(into, *size),)
    if kind == "merge":
        return drawn(into, *size), drawn(into, *size)
    if kind == "exchange":
        return drawn(into // 2, *size), drawn(into // 2, *size)
    if kind == "modulate":
        return drawn(into, *size), drawn(widths["semantic_channels"], height // 2, width // 2)
    raise ValueError(f"{type(block).__name__} has no kind, one of {', '.join(KINDS)}")
