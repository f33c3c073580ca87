"""Blocks and networks that exchange their class for one with a faster forward pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

FAST: dict[type[nn.Module], type[nn.Module]] = {}
"""The fast class of a class; a subclass with another forward pass is not touched."""


def fast(base: type[nn.Module]) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Declare that the decorated subclass of ``base`` computes the same faster.

    Its ``prepare``, where it has one, changes the module's weights once, its children being prepared already.
    """

    def declare(subclass: type[nn.Module]) -> type[nn.Module]:
        FAST[base] = subclass
        return subclass

    return declare


@torch.no_grad()
def recast(module: nn.Module) -> None:
    """Give ``module`` and all below it the fast class of their class, in place."""
    for child in module.children():
        recast(child)
    fast_class = FAST.get(type(module))
    if fast_class is not None:
        module.__class__ = fast_class
        prepare = getattr(module, "prepare", None)
        if prepare is not None:
            prepare()
