"""Blocks on maps that are known by rows: what a block makes of them is known by rows again."""

from __future__ import annotations

from torch import Tensor, nn

from fusionblocks._support.modules import is_watched, keeps, plain_class
from fusionblocks.blocks.reaching import in_a_row, reach
from fusionblocks.image.rows import Map, Rows, WholeOnlyError


def run(module: nn.Module, x: Map) -> Map:
    """Return ``module(x)``, of a tensor or of a map by rows.

    By rows goes a module of which is known how many rows it sees (:func:`fusionblocks.blocks.reach`), and a block that
    gathers what it needs of the whole map in a sweep of its own: its method ``by_rows`` from rows to rows.

    Raises:
        WholeOnlyError: If the module sees more of a map by rows than can be known.
    """
    return module(x) if isinstance(x, Tensor) else _by_rows(module, x)


def _by_rows(module: nn.Module, x: Rows) -> Rows:
    if is_own(module, "by_rows"):
        return module.by_rows(x)  # type: ignore[operator]
    return x.map(module, reach=known_reach(module))


def known_reach(*modules: nn.Module) -> int:
    """Return how many rows modules that act one after the other see.

    Raises:
        WholeOnlyError: If that cannot be known.
    """
    for module in modules:
        if reach(module) is None:
            raise WholeOnlyError(f"it is not known how many rows of a map {type(module).__name__} sees")
    return in_a_row(*modules) or 0


def is_own(module: nn.Module, method: str) -> bool:
    """Whether a method of a block tells what its ``forward`` does: nobody hooked into the block or changed it."""
    cls = plain_class(module)
    owner = next((base for base in cls.__mro__ if method in vars(base)), None)
    return owner is not None and keeps(cls, owner) and not is_watched(module)


def must_own(module: nn.Module, method: str) -> None:
    """Raise unless a block's method tells what its ``forward`` does.

    Raises:
        WholeOnlyError: If it does not.
    """
    if not is_own(module, method):
        raise WholeOnlyError(f"it is not known what {type(module).__name__} gathers of a map")
