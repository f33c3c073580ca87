"""Losses as modules, made from the functions: a signature, a docstring and a row, nothing that is written twice."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


def as_module(name: str, function: Callable[..., Tensor]) -> type[nn.Module]:
    """Return a class of modules that compute a loss function.

    The options of its constructor, attributes of the module, are the function's keyword-only arguments; the arguments
    of its ``forward`` are the others.

    Args:
        name: Name of the class, as it is called in the function's module.
        function: Its docstring has a line for every argument.
    """
    parameters = inspect.signature(function, eval_str=True).parameters
    options = {key: value for key, value in parameters.items() if value.kind is inspect.Parameter.KEYWORD_ONLY}
    inputs = [value for key, value in parameters.items() if key not in options]
    constructor = inspect.Signature(list(options.values()))

    def __init__(self: Any, *args: Any, **chosen: Any) -> None:  # noqa: N807
        nn.Module.__init__(self)
        try:
            bound = constructor.bind(*args, **chosen)
        except TypeError as error:
            raise TypeError(f"{name}() {error}; its options: {', '.join(options) or 'none'}") from None
        bound.apply_defaults()
        for option, value in bound.arguments.items():
            setattr(self, option, value)

    def forward(self: Any, *args: Tensor, **named: Tensor) -> Tensor:
        return function(*args, **named, **{option: getattr(self, option) for option in options})

    def extra_repr(self: Any) -> str:
        return ", ".join(f"{option}={getattr(self, option)!r}" for option in options)

    forward.__doc__ = f"Return the loss, see :func:`{function.__name__}`."
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    forward.__signature__ = inspect.Signature([own, *inputs], return_annotation=Tensor)  # type: ignore[attr-defined]
    body = {
        "__init__": __init__,
        "forward": forward,
        "extra_repr": extra_repr,
        "__doc__": _docstring(name, function, options),
        "__module__": function.__module__,
        "__signature__": constructor,
    }
    return type(name, (nn.Module,), body)


def _docstring(name: str, function: Callable[..., Tensor], options: dict[str, inspect.Parameter]) -> str:
    lines = [f"Module of :func:`{function.__name__}`.", ""]
    if options:
        lines += ["Args:", *(line for option in options for line in _told(function, option)), ""]
    defaults = ", ".join(f"{option}={parameter.default!r}" for option, parameter in options.items())
    example = [
        f">>> from {function.__module__.rpartition('.')[0]} import {name}",
        f">>> {name}()",
        f"{name}({defaults})",
    ]
    return "\n".join([*lines, "Example:", *(f"    {line}" for line in example)])


def _told(function: Callable[..., Tensor], option: str) -> list[str]:
    """Return what the docstring of a function says of an argument."""
    arguments = f"{inspect.getdoc(function)}\n".partition("Args:\n")[2]
    found = re.search(rf"^    {option}: .*\n(?:     .*\n)*", arguments, re.MULTILINE)
    if found is None:
        raise ValueError(f"the docstring of {function.__name__} does not tell what {option} is")
    return found[0].rstrip("\n").split("\n")
