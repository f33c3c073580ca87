"""The published checkpoints: the file ``checkpoint.py`` of a network says how its authors' keys map to ours.

It defines

``unwrap(checkpoint) -> dict[str, Tensor] | None``
    Takes what the authors' file holds and returns one flat state dict of published keys, or ``None`` when the
    file is not laid out as this network's checkpoints are.
``RENAMES``
    Ordered ``(pattern, replacement)`` pairs, applied to every key by :func:`rename`. A pattern starts at the
    start of a dotted segment, so the same pairs serve a single block and the whole network.
``UNUSED``
    ``{pattern: reason}`` of the keys that the authors' code defines and never uses; these are ignored.
``convert(state) -> dict[str, Tensor]``
    Published keys to ours; by default the two tables above, applied by :func:`convert_keys`.
``PARTS`` (optional)
    The network's children that the authors' file holds, where they released no weights of the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

Renames = Sequence[tuple[str, str]]


def rename(key: str, renames: Renames) -> str:
    """Return ``key`` after every substitution in order; patterns match from the start of a dotted segment."""
    for pattern, replacement in renames:
        key = re.sub(rf"(?<![^.]){pattern}", replacement, key)
    return key


def is_unused(key: str, unused: Mapping[str, str]) -> bool:
    """Return whether ``key`` matches one of the patterns of an ``UNUSED`` table, from its start."""
    return any(re.match(pattern, key) for pattern in unused)


def convert_keys(state: Mapping[str, Tensor], renames: Renames, unused: Mapping[str, str]) -> dict[str, Tensor]:
    """Return the state with unused keys dropped and the others renamed.

    Raises:
        ValueError: If two keys would get the same name.
    """
    converted: dict[str, Tensor] = {}
    for key, value in state.items():
        if is_unused(key, unused):
            continue
        new = rename(key, renames)
        if new in converted:
            raise ValueError(f"two published keys map to {new!r}; the second is {key!r}")
        converted[new] = value
    return converted


def is_state(value: object) -> bool:
    """Return whether ``value`` is a plain state dict: names to tensors, and not empty."""
    if not isinstance(value, Mapping) or not value:
        return False
    return all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items())
