"""Plain values into dataclasses, every key and type checked; and YAML into plain values."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, Union

from fusionblocks._support.names import closest


def parse_value(text: str) -> Any:
    """Return the value that a piece of YAML stands for: ``3``, ``1e-4``, ``[flip, rotate]``, ``null``."""
    import yaml

    try:
        return yaml.load(text, _loader())
    except yaml.YAMLError as error:
        raise ValueError(f"{text!r} is not a YAML value: {error}") from error


def build(kind: Any, values: Any, where: str) -> Any:
    """Return a dataclass of nested plain values, every key checked."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{where.rstrip('.') or 'a recipe'} must be keys with values, got {values!r}")
    hints = typing.get_type_hints(kind)
    known = [item.name for item in dataclasses.fields(kind)]
    for key in values:
        if key not in known:
            raise ValueError(f"unknown recipe key {where}{key}{closest(str(key), known)}; known: {', '.join(known)}")
    needed = [item.name for item in dataclasses.fields(kind) if _is_needed(item) and item.name not in values]
    if needed:
        raise ValueError(f"the recipe lacks {', '.join(where + name for name in needed)}")
    return kind(**{key: _convert(value, hints[key], where + key) for key, value in values.items()})


def _is_needed(item: dataclasses.Field[Any]) -> bool:
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


def _convert(value: Any, hint: Any, where: str) -> Any:
    """Return a plain value as a field's type wants it."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return None if value is None else _convert(value, next(kind for kind in inner if kind is not type(None)), where)
    if dataclasses.is_dataclass(hint):
        return build(hint, value, f"{where}.")
    if origin is tuple and isinstance(value, list | tuple):
        names = [item.get("name", i) if isinstance(item, Mapping) else i for i, item in enumerate(value)]
        return tuple(_convert(item, inner[0], f"{where}.{name}") for name, item in zip(names, value, strict=True))
    if origin is not None and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return {key: _convert(item, inner[1], f"{where}.{key}") for key, item in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    is_truth = isinstance(value, bool)  # which Python counts among the whole numbers
    if hint is Any or (isinstance(hint, type) and isinstance(value, hint) and is_truth == (hint is bool)):
        return value
    wanted = {tuple: "a list", Mapping: "keys with values", int: "a whole number", float: "a number", str: "text"}
    raise ValueError(f"{where} must be {wanted.get(origin or hint, 'true or false')}, got {value!r}")


def _loader() -> Any:
    """Return YAML's safe loader, which reads ``1e-4`` as a number, as YAML 1.2 does, and refuses a key given twice."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            twice = next((key for key in keys if keys.count(key) > 1), None)
            if twice is not None:
                raise yaml.constructor.ConstructorError(None, None, f"key {twice!r} is given twice", node.start_mark)
            return super().construct_mapping(node, deep)

    number = re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+.0123456789"))
    return Loader
