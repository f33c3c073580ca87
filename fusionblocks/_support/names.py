"""Unknown names, and the known one that was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable

LIKELY = 0.6
"""How much alike two names are at least, of 1, for one to be offered for the other."""


def closest(
    name: object,
    known: Iterable[str],
    form: str = " ({})",
    *,
    likely: float = LIKELY,
    key: Callable[[str], str] = str,
) -> str:
    """Return ``did you mean 'x'?`` in the given form for the known name nearest to ``name``, or an empty string.

    Names are compared by what ``key`` makes of them.
    """
    keys = {key(other): other for other in known}
    match = difflib.get_close_matches(key(str(name)), keys, n=1, cutoff=likely)
    return form.format(f"did you mean {keys[match[0]]!r}?") if match else ""
