"""Which implementation of an operator runs: argument, then ``with backend(...)``, then environment, then automatic."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple

from torch import Tensor

from fusionblocks.ops._rows import nearest

ENVIRONMENT = "FUSIONBLOCKS_BACKEND"
AUTOMATIC = "auto"
KNOWN = ("torch", "sdpa", "triton")  # names a user may ask for, of any operator

OPERATORS: dict[str, Operator] = {}

# A threading.local and not a ContextVar: torch.compile traces (and guards on) the former, and breaks the graph at the
# latter's ``set``.
_THREAD = threading.local()


class backend:  # noqa: N801  (used as ``with backend("torch"):``)
    """Run every operator in a ``with`` block on one backend, in the current thread.

    The setting nests; an operator's own ``backend`` argument wins over it, and it wins over the environment variable
    ``FUSIONBLOCKS_BACKEND``. It works inside functions compiled by ``torch.compile`` and around them (they recompile
    when it changes), whereas compiled code keeps the environment's value from the time when it was compiled.

    Args:
        name: ``"torch"``, ``"triton"``, ``"sdpa"`` (of the operators that have it) or ``"auto"``: each operator chooses
            by what was measured, see :func:`explain`.

    Raises:
        TypeError: If the name is not a string.
        ValueError: If no backend has this name.

    Example:
        >>> import torch
        >>> from fusionblocks import ops
        >>> x = torch.rand(1, 2, 9, 4)
        >>> with ops.backend("torch"):
        ...     ops.cross_attention(x, x, x).shape
        torch.Size([1, 2, 9, 4])
    """

    def __init__(self, name: str) -> None:
        self.name = _known(name, "backend")

    def __enter__(self) -> backend:
        _THREAD.names = (*_names(), self.name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _THREAD.names = _names()[:-1]


class Verdict(NamedTuple):
    """Whether a backend serves a call of its own accord, and why or why not."""

    serves: bool
    why: object  # as text; most calls never ask for it


def measured_to_win(operator: str, tensors: Sequence[Tensor]) -> Verdict:
    """Judge a call by the row that was measured of its kind on a GPU."""
    if not tensors:
        return Verdict(False, "serves where it was measured to win")
    if not tensors[0].is_cuda:
        return Verdict(False, "serves on a CPU when asked for")
    row = nearest(operator, tensors)
    if row is None:
        return Verdict(False, "serves when asked for, no such call was measured")
    return Verdict(row.serves, row)


def on_gpus(operator: str, tensors: Sequence[Tensor]) -> Verdict:
    """Let a backend of PyTorch's own serve on a GPU."""
    return Verdict(any(tensor.is_cuda for tensor in tensors), "serves on a GPU")


@dataclass(frozen=True)
class Backend:
    """One way to compute an operator.

    ``refuse`` gets the call's tensors, none when the question is general, and says why it cannot serve them, or None.
    ``judge`` gets the operator's name and the tensors, and says whether it serves them without being asked for.
    """

    name: str
    call: Callable[..., Any]
    refuse: Callable[[Sequence[Tensor]], str | None] | None = None
    judge: Callable[[str, Sequence[Tensor]], Verdict] = measured_to_win

    def reason_against(self, tensors: Sequence[Tensor]) -> str | None:
        return None if self.refuse is None else self.refuse(tensors)


class Operator:
    """An operator's backends, the first to be asked first; the last one is the reference and serves every call."""

    def __init__(self, name: str, *backends: Backend) -> None:
        self.name = name
        self.backends = {candidate.name: candidate for candidate in backends}
        OPERATORS[name] = self

    def choose(self, argument: str | None, *tensors: Tensor) -> Callable[..., Any]:
        """Return the function that serves this call; an explicitly requested one that cannot serve raises."""
        name, origin = _requested(argument)
        if name == AUTOMATIC:
            return self._first_that_serves(tensors).call
        reason = self._reason_against(name, tensors)
        if reason is not None:
            raise RuntimeError(
                f"{self.name} cannot run on the backend {name!r} asked for by {origin}: {reason}; "
                f"backends of {self.name}: {', '.join(self.backends)}"
            )
        return self.backends[name].call

    def explain(self, argument: str | None, *tensors: Tensor) -> str:
        """Return one sentence: the backend of this call and why."""
        name, origin = _requested(argument)
        if name != AUTOMATIC:
            reason = self._reason_against(name, tensors)
            if reason is None:
                return f"{self.name} runs on {name}: asked for by {origin}"
            return f"{self.name} cannot run on {name}, asked for by {origin}: {reason}"
        chosen = self._first_that_serves(tensors).name
        why = []
        for candidate in list(self.backends.values())[:-1]:
            against = candidate.reason_against(tensors) or candidate.judge(self.name, tensors).why
            why.append(f"{candidate.name}: {against}")
            if candidate.name == chosen:
                break
        return f"{self.name} runs on {chosen}: chosen automatically" + (f" ({'; '.join(why)})" if why else "")

    def _first_that_serves(self, tensors: Sequence[Tensor]) -> Backend:
        *faster, reference = self.backends.values()
        for candidate in faster:
            # what was measured is asked first: on a CPU that is the quicker answer
            if candidate.judge(self.name, tensors).serves and candidate.reason_against(tensors) is None:
                return candidate
        return reference

    def _reason_against(self, name: str, tensors: Sequence[Tensor]) -> str | None:
        if name not in self.backends:
            return f"{self.name} has no {name} implementation"
        return self.backends[name].reason_against(tensors)


def explain(operator: str | Callable[..., Any], *tensors: Tensor, backend: str | None = None) -> str:
    """Say which backend an operator would choose for these tensors, and why.

    Args:
        operator: The operator or its name, such as ``"channel_attention"``.
        *tensors: The tensors of the call in their order; leave them out to ask in general.
        backend: The ``backend`` argument of the call.

    Returns:
        One sentence.

    Raises:
        TypeError: If a tensor argument is not a tensor.
        ValueError: If there is no such operator, or no backend of this name.

    Example:
        >>> from fusionblocks import ops
        >>> ops.explain("channel_attention", backend="torch")
        "channel_attention runs on torch: asked for by backend='torch'"
    """
    name = operator if isinstance(operator, str) else getattr(operator, "__name__", repr(operator))
    if name not in OPERATORS:
        raise ValueError(f"operator must be one of {', '.join(sorted(OPERATORS))}, got {name!r}")
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"tensors must be tensors, got {type(tensor).__name__}")
    return OPERATORS[name].explain(backend, *tensors)


def _names() -> tuple[str, ...]:
    return getattr(_THREAD, "names", ())


def _requested(argument: str | None) -> tuple[str, str]:
    """Return the requested backend, or ``"auto"``, and who asked for it."""
    if argument is not None:
        return _known(argument, "backend"), f"backend={argument!r}"
    names = _names()
    if names:
        return names[-1], f"with backend({names[-1]!r})"
    variable = os.environ.get(ENVIRONMENT)
    if variable:
        return _known(variable, f"environment variable {ENVIRONMENT}"), f"{ENVIRONMENT}={variable}"
    return AUTOMATIC, AUTOMATIC


def _known(name: str, what: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{what} must be a string, got {type(name).__name__}")
    if name != AUTOMATIC and name not in KNOWN:
        raise ValueError(f"{what} must be one of {', '.join((*KNOWN, AUTOMATIC))}, got {name!r}")
    return name
