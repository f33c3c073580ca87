"""A training loss composed of weighted terms by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fusionblocks._support.checks import check_number
from fusionblocks.losses.presets import PRESETS
from fusionblocks.losses.terms import TERMS, Term, term, unknown


@dataclass(frozen=True)
class LossReport:
    """A loss and what it is made of.

    Args:
        total: The weighted sum, a scalar with a gradient.
        terms: The value of each term before weighting, a detached scalar each.
    """

    total: Tensor
    terms: dict[str, Tensor]


class FusionLoss(nn.Module):
    """Weighted sum of terms by name, which reports every term.

    Args:
        weights: The weight of each term, by its name in :data:`TERMS` or in ``terms``. A term of weight 0 is reported
            and teaches nothing.
        options: Options of terms: ``{"axis_gradient": {"border": "replicate"}}``. They are the keyword-only arguments
            of the term's function.
        terms: Terms of your own: functions that return a scalar. Their arguments name the inputs they take.

    Raises:
        TypeError: A weight is not a number, or a term of your own is not a function of named inputs.
        ValueError: A name or an option is unknown (the closest match is offered), a weight is negative, or there is
            no term.

    Example:
        >>> import torch
        >>> from fusionblocks.losses import FusionLoss
        >>> loss = FusionLoss({"intensity_max": 4.0, "color": 12.0})
        >>> infrared, visible = torch.zeros(1, 1, 8, 8), torch.rand(1, 3, 8, 8)
        >>> report = loss(fused=visible, infrared=infrared, visible=visible)
        >>> report.total, sorted(report.terms)
        (tensor(0.), ['color', 'intensity_max'])
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        *,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        terms: Mapping[str, Callable[..., Tensor]] | None = None,
    ) -> None:
        super().__init__()
        own = {name: term(function) for name, function in (terms or {}).items()}
        taken = sorted(own.keys() & TERMS.keys())
        if taken:
            raise ValueError(f"terms must have names of their own, {taken[0]!r} is taken")
        self._terms = _chosen(weights, {**TERMS, **own})
        self.weights = {name: float(weight) for name, weight in weights.items()}
        self.options = _checked_options(options or {}, self._terms)

    @classmethod
    def preset(
        cls,
        name: str,
        *,
        weights: Mapping[str, float | None] | None = None,
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> FusionLoss:
        """Return a paper's loss.

        Args:
            name: One of :data:`PRESETS`.
            weights: Weights that differ, or further terms; ``None`` drops a term.
            options: Options that differ.

        Raises:
            TypeError: A weight is not a number.
            ValueError: A name or an option is unknown; the message offers the closest match.

        Example:
            >>> from fusionblocks.losses import FusionLoss
            >>> FusionLoss.preset("sgdfuse", weights={"vif": 0.5})
            FusionLoss(1.5 intensity_max + 1 joint_gradient + 0.5 vif)
        """
        if name not in PRESETS:
            raise ValueError(unknown("preset", name, PRESETS))
        preset = PRESETS[name]
        for dropped in (other for other, weight in (weights or {}).items() if weight is None):
            if dropped not in preset.weights:
                raise ValueError(unknown(f"term of the preset {name!r}", dropped, preset.weights))
        merged = {**preset.weights, **(weights or {})}
        chosen = {other: weight for other, weight in merged.items() if weight is not None}
        kept = {other: dict(values) for other, values in preset.options.items() if other in chosen}
        for other, values in (options or {}).items():
            kept[other] = {**kept.get(other, {}), **values}
        return cls(chosen, options=kept)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of all inputs that the terms take, sorted."""
        return tuple(sorted({name for chosen in self._terms.values() for name in chosen.inputs.values()}))

    def forward(self, **inputs: Tensor | None) -> LossReport:
        r"""Compute all terms.

        Args:
            **inputs: Tensors by name, see :attr:`inputs`; those that no term takes are ignored.

        Returns:
            The weighted sum with its gradient, and each term's value before weighting.

        Raises:
            ValueError: A term's input is missing, or does not fit.
        """
        weighted: list[Tensor] = []
        terms: dict[str, Tensor] = {}
        for name, chosen in self._terms.items():
            arguments = _arguments(name, chosen, inputs)
            weight = self.weights[name]
            with torch.set_grad_enabled(torch.is_grad_enabled() and weight != 0):
                value = chosen.function(**arguments, **self.options.get(name, {}))
            weighted.append(weight * value)
            terms[name] = value.detach()
        return LossReport(sum(weighted[1:], start=weighted[0]), terms)

    def extra_repr(self) -> str:
        return " + ".join(f"{weight:g} {name}" for name, weight in self.weights.items())


def _chosen(weights: Mapping[str, float], known: Mapping[str, Term]) -> dict[str, Term]:
    if not weights:
        raise ValueError("weights must name at least one term, got none")
    for name, weight in weights.items():
        if name not in known:
            raise ValueError(unknown("term", name, known))
        check_number(f"the weight of {name}", weight, least=0)
    return {name: known[name] for name in weights}


def _checked_options(options: Mapping[str, Mapping[str, Any]], terms: Mapping[str, Term]) -> dict[str, dict[str, Any]]:
    for name, values in options.items():
        if name not in terms:
            raise ValueError(f"options are given for a term without weight: {unknown('term', name, terms)}")
        for option in values:
            if option not in terms[name].options:
                raise ValueError(unknown(f"option of the term {name!r}", option, terms[name].options))
    return {name: dict(values) for name, values in options.items()}


def _arguments(name: str, chosen: Term, inputs: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    """Return the arguments of a term; a missing input is an error that names both."""
    arguments = {}
    for parameter, needed in chosen.inputs.items():
        value = inputs.get(needed)
        if value is None:
            given = ", ".join(sorted(other for other, tensor in inputs.items() if tensor is not None))
            raise ValueError(f"the term {name!r} needs the input {needed!r}, got {given or 'none'}")
        arguments[parameter] = value
    return arguments
