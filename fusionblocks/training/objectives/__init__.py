"""Objectives: what a phase of a network's training minimises, each a short module beside its paper."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from fusionblocks._support.names import closest
from fusionblocks.training.objectives.base import Objective
from fusionblocks.training.recipe import PhaseRecipe

OBJECTIVES = {
    "fusion": ("fusion", "Fusion"),
    "psfusion": ("psfusion", "MultiTask"),
    "sgafusion": ("sgafusion", "SegmentAndFuse"),
    "sgafusion_degraded": ("sgafusion", "FuseDegraded"),
    "sgdfuse_diffusion": ("sgdfuse", "Diffusion"),
    "sgdfuse_head": ("sgdfuse", "Head"),
    "sgdfuse_preliminary": ("sgdfuse", "Preliminary"),
    "smfnet_fusion": ("smfnet", "Fuse"),
    "smfnet_reconstruction": ("smfnet", "Reconstruct"),
}
"""Module and class of each objective by its name in recipes."""

__all__ = ["OBJECTIVES", "Objective", "build_objective", "check_inputs", "objective_class"]


def objective_class(name: str, others: Mapping[str, type[Objective]] | None = None) -> type[Objective]:
    """Return the class of an objective.

    Args:
        name: One of ``OBJECTIVES``, or of ``others``.
        others: Further objectives by name.

    Raises:
        ValueError: If there is no such objective (the closest match is offered).
    """
    if others and name in others:
        return others[name]
    known = sorted({*OBJECTIVES, *(others or {})})
    if name not in OBJECTIVES:
        raise ValueError(f"unknown objective {name!r}{closest(name, known)}; known: {', '.join(known)}")
    module, kind = OBJECTIVES[name]
    return getattr(importlib.import_module(f"fusionblocks.training.objectives.{module}"), kind)


def build_objective(kind: type[Objective], recipe: PhaseRecipe, network: nn.Module) -> Objective:
    """Return the objective of a phase.

    Raises:
        ValueError: If there is no such option, loss term or option of one (the closest match is offered).
    """
    options = list(inspect.signature(kind).parameters)[3:]
    for option in recipe.options:
        if option not in options:
            raise ValueError(
                f"objective {recipe.objective!r} takes no option {option!r}{closest(option, options)}; "
                f"known: {', '.join(options) or 'none'}"
            )
    return kind(network, recipe.losses, recipe.loss_options, **recipe.options)


def check_inputs(objective: Objective, item: Mapping[str, Any], phase: str) -> None:
    """Raise unless an item of the data holds all that an objective needs."""
    missing = [name for name in objective.inputs if name not in item]
    if missing:
        raise ValueError(
            f"phase {phase!r} needs {', '.join(missing)} of every pair, the data give {', '.join(sorted(item))}"
        )
