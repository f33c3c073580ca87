"""Modules that exchange their class for one that computes the same faster."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from fusionblocks._support.modules import is_a, is_watched

Module = TypeVar("Module", bound=nn.Module)


class Rewrite(nn.Module):
    """Base of the fast classes; each is a subclass of the class that it stands for, with another forward pass.

    What a module is made of stays as it is beside what is prepared from it: its parts keep their names, and somebody
    who reaches into it finds what was there.
    """

    equals: ClassVar[type[nn.Module]]
    """The class that this one computes the same as."""
    precise: ClassVar[tuple[str, ...]] = ()
    """Paths of submodules and parameters that never get less than float32."""

    @classmethod
    def fits(cls, module: Any) -> bool:
        """Whether a module is as the fast class relies on it to be. Unknown means no."""
        return True

    def prepare(self) -> None:
        """Derive once what the forward pass needs."""

    def acting(self) -> Iterable[nn.Module]:
        """Return the parts that the forward pass calls, to be rewritten in turn."""
        return self.children()


REWRITES: dict[type[nn.Module], type[Rewrite]] = {}
"""The fast class of a class."""
_CLASSES: dict[tuple[type, type], type] = {}


def rewrites(base: type[nn.Module]) -> Callable[[type[Rewrite]], type[Rewrite]]:
    """Declare that the decorated subclass of ``base`` computes the same faster, where it ``fits``."""

    def declare(fast: type[Rewrite]) -> type[Rewrite]:
        fast.equals = base
        REWRITES[base] = fast
        return fast

    return declare


@torch.no_grad()
def rewrite(module: nn.Module, done: set[int] | None = None) -> None:
    """Give a module and the parts below it the fast classes that fit them, in place.

    A module is left alone if it, or a part of it, has hooks, parametrized weights, a forward pass of its own or was
    compiled: a fast class may bypass its parts, or show them strips. Its parts are looked at one by one then.
    """
    done = set() if done is None else done
    if id(module) in done:
        return
    done.add(id(module))
    fast = fast_class(module)
    if fast is not None:
        module.__class__ = _joined(fast, type(module))
        module.prepare()
    parts = module.acting() if isinstance(module, Rewrite) else module.children()
    for part in parts:
        rewrite(part, done)


def fast_class(module: nn.Module) -> type[Rewrite] | None:
    """Return the fast class that fits a module, None if there is none."""
    for base in type(module).__mro__:
        if base in REWRITES:
            fast = REWRITES[base]
            fits = is_a(module, base) and not isinstance(module, Rewrite) and untouched(module) and fast.fits(module)
            return fast if fits else None
    return None


def untouched(module: nn.Module) -> bool:
    """Whether nobody watches or changes how a module and its parts compute."""
    return not any(is_watched(part) or is_parametrized(part) for part in module.modules())


def _joined(fast: type[Rewrite], cls: type[nn.Module]) -> type[nn.Module]:
    """Return the fast class; for a subclass of what it stands for one that is both."""
    if cls is fast.equals:
        return fast
    if (fast, cls) not in _CLASSES:
        _CLASSES[fast, cls] = type(fast.__name__, (fast, cls), {"equals": cls, "__module__": fast.__module__})
    return _CLASSES[fast, cls]


def is_convolution(module: Any, *, kernel: int | None = None) -> bool:
    """Whether a module is a plain convolution that keeps the size, with zeros around; perhaps of one kernel size."""
    return (
        is_a(module, nn.Conv2d)
        and module.padding_mode == "zeros"
        and module.stride == (1, 1)
        and not isinstance(module.padding, str)
        and all(
            2 * pad == step * (size - 1)
            for pad, step, size in zip(module.padding, module.dilation, module.kernel_size, strict=True)
        )
        and (kernel is None or (module.kernel_size == (kernel, kernel) and module.dilation == (1, 1)))
    )


def is_pointwise(module: Any) -> bool:
    """Whether a module is a plain 1x1 convolution of all channels."""
    return is_convolution(module, kernel=1) and module.groups == 1


def like(conv: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """Return a convolution with other weights and otherwise the same geometry."""
    new = nn.utils.skip_init(
        nn.Conv2d,
        weight.shape[1] * conv.groups,
        weight.shape[0],
        conv.kernel_size,
        stride=conv.stride,
        padding=conv.padding,
        dilation=conv.dilation,
        groups=conv.groups,
        bias=bias is not None,
        padding_mode=conv.padding_mode,
        device="meta",
    )
    new.weight, new.bias = frozen(weight), None if bias is None else frozen(bias)
    return new.eval()


def frozen(value: Tensor) -> nn.Parameter:
    """Return a parameter that is not trained."""
    return nn.Parameter(value.detach(), requires_grad=False)


def convert(model: Module, dtype: torch.dtype | None) -> Module:
    """Convert a network's weights in place, but for what its parts call ``precise``."""
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
