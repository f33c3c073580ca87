"""Whether a module still does what its class does."""

from __future__ import annotations

from typing import Any

from torch import nn


def is_watched(module: nn.Module) -> bool:
    """Whether somebody hooked into a module, compiled it, or gave the object a forward pass of its own.

    A hook that changes nothing but dtypes and outputs that nobody wants says so: it ``is_neutral``.
    """
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return (
        any(not getattr(hook, "is_neutral", False) for name in hooks for hook in getattr(module, name).values())
        or "forward" in vars(module)
        or module._compiled_call_impl is not None
    )


def plain_class(module: nn.Module) -> type[nn.Module]:
    """Return a module's class; of a class that computes the same as another (``equals``), that other one."""
    cls = type(module)
    return vars(cls).get("equals", cls)


def is_a(module: Any, base: type) -> bool:
    """Whether a module is of a class, or of a subclass that changes nothing of what its base does."""
    return isinstance(module, base) and keeps(plain_class(module), base)  # type: ignore[arg-type]


def keeps(cls: type, base: type) -> bool:
    """Whether a subclass changes nothing of what its base does: it may have another constructor, and names beside."""
    own = cls.__mro__[: cls.__mro__.index(base)]
    names = {name for part in own for name in vars(part)} - _NEUTRAL
    # what the hub's mixin notes of every subclass does not count as behaviour
    return not any(hasattr(base, name) for name in names if not name.startswith("_hub_mixin"))


_NEUTRAL = {
    "__init__", "__doc__", "__module__", "__qualname__", "__annotations__", "__annotate_func__", "__firstlineno__",
    "__static_attributes__", "__constants__", "__parameters__", "__orig_bases__", "__dict__", "__weakref__",
    "__repr__", "extra_repr", "kind", "stands_alone",
}  # fmt: skip
"""What a subclass may define without doing anything else than its base."""
