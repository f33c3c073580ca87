"""Blocks and networks that exchange their class for one with a faster forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)

FAST: dict[type[nn.Module], type[nn.Module]] = {}
"""The fast class of a class; a subclass with another forward pass is not touched."""


def fast(base: type[nn.Module]) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Declare that the decorated subclass of ``base`` computes the same faster.

    Its ``prepare``, where it has one, changes the module's weights once, its children being prepared already. Its
    ``precise``, where it has one, names submodules and parameters that never get less than float32.
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


def convert(model: Model, dtype: torch.dtype | None) -> Model:
    """Convert a network's weights in place, but for what fast classes call ``precise``."""
    precise = {
        id(tensor)
        for path, module in model.named_modules()
        for name in getattr(module, "precise", ())
        for key, tensor in model.state_dict(keep_vars=True).items()
        if f"{key}.".startswith(f"{path}.{name}.".lstrip("."))
    }

    def converted(tensor: Tensor) -> Tensor:
        if dtype is None or not tensor.is_floating_point():
            return tensor
        return tensor.to(torch.promote_types(dtype, torch.float32) if id(tensor) in precise else dtype)

    return model._apply(converted)
