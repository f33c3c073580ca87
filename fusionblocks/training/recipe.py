"""Recipes: how a network is trained, read from short YAML files whose keys are all known."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fusionblocks._support.checks import check_choice, check_number
from fusionblocks._support.names import closest
from fusionblocks.training.plain import build, parse_value

RECIPES = Path(__file__).parent / "recipes"
OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "steps", "linear", "warmup_poly", "cosine")
AUGMENTATIONS = ("flip", "rotate")


def _check_number(name: str, value: float | None, **bounds: float) -> None:
    if value is not None:
        check_number(name, value, **bounds)


@dataclass(frozen=True)
class OptimizerRecipe:
    """What changes the weights.

    Args:
        name: ``"adam"``, ``"adamw"`` or ``"sgd"``.
        lr: Learning rate, before the schedule.
        weight_decay: Of the optimiser.
        momentum: Of ``"sgd"``.
        rates: Other learning rates for some parts of the network, by the beginning of their parameters' names.
    """

    name: str = "adam"
    lr: float = 1e-4
    weight_decay: float = 0.0
    momentum: float = 0.9
    rates: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("optimizer.name", self.name, OPTIMIZERS)
        _check_number("optimizer.lr", self.lr, above=0)
        _check_number("optimizer.weight_decay", self.weight_decay, least=0)


@dataclass(frozen=True)
class ScheduleRecipe:
    """How the learning rate changes.

    Args:
        name: ``"constant"``; ``"steps"``: times ``factor`` after every ``every`` epochs, not below ``floor``;
            ``"linear"``: full for the share ``hold`` of the epochs, then down to zero epoch by epoch;
            ``"warmup_poly"``: geometrically from ``start`` within ``warmup`` steps, then a polynomial of ``power`` down
            to zero; ``"cosine"``: linearly up within ``warmup`` steps, then half a cosine down to ``floor``.
        every: Epochs.
        factor: What ``"steps"`` multiplies by.
        floor: Lowest rate.
        hold: Share of the epochs in [0, 1).
        warmup: Steps.
        start: First rate of ``"warmup_poly"``.
        power: Of the polynomial.
    """

    name: str = "constant"
    every: int = 20
    factor: float = 0.5
    floor: float = 0.0
    hold: float = 0.5
    warmup: int = 0
    start: float = 1e-5
    power: float = 0.9

    def __post_init__(self) -> None:
        check_choice("schedule.name", self.name, SCHEDULES)
        _check_number("schedule.every", self.every, least=1)
        _check_number("schedule.hold", self.hold, least=0, below=1)
        _check_number("schedule.warmup", self.warmup, least=0)
        _check_number("schedule.start", self.start, above=0)


@dataclass(frozen=True)
class PhaseRecipe:
    """A part of the training with an objective of its own.

    Args:
        name: What logs and messages call it.
        objective: One of ``fusionblocks.training.OBJECTIVES``.
        epochs: Times to go through the pairs; or
        steps: Changes of the weights.
        batch: Pairs that each process sees at once.
        accumulate: Batches whose gradients are added up for one change of the weights.
        patch: Side of the square patches to cut; None takes whole pictures.
        augment: Of ``"flip"`` and ``"rotate"``.
        degrade: Keywords of ``fusionblocks.data.PairedDegrade``; None degrades nothing.
        parts: Parts of the network that learn, by the beginning of their parameters' names; none means all.
        optimizer: What changes the weights.
        schedule: How the learning rate changes.
        clip: Largest norm of the gradients; None clips nothing.
        clip_parts: Whether each direct part of the network is clipped by itself.
        ema: Decay of the running average of weights and buffers that the phase ends in; None keeps no average.
        losses: Weights of the loss terms by name, see :class:`fusionblocks.losses.FusionLoss`.
        loss_options: Options of the loss terms by name.
        options: Further keywords of the objective.
    """

    name: str
    objective: str
    epochs: int | None = None
    steps: int | None = None
    batch: int = 1
    accumulate: int = 1
    patch: int | None = None
    augment: tuple[str, ...] = ()
    degrade: Mapping[str, Any] | None = None
    parts: tuple[str, ...] = ()
    optimizer: OptimizerRecipe = OptimizerRecipe()
    schedule: ScheduleRecipe = ScheduleRecipe()
    clip: float | None = None
    clip_parts: bool = False
    ema: float | None = None
    losses: Mapping[str, float] = field(default_factory=dict)
    loss_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"phase {self.name!r} needs either epochs or steps, got {self.epochs} and {self.steps}")
        for name in ("epochs", "steps", "batch", "accumulate", "patch"):
            _check_number(name, getattr(self, name), least=1)
        _check_number("clip", self.clip, above=0)
        _check_number("ema", self.ema, above=0, below=1)
        for augmentation in self.augment:
            check_choice("augment", augmentation, AUGMENTATIONS)


@dataclass(frozen=True)
class ValidationRecipe:
    """How a network is judged while it learns.

    Args:
        every: Epochs between two validations.
        metrics: Names of ``fusionblocks.metrics.METRICS``.
        best: The metric whose highest mean makes the best checkpoint, one of ``metrics``.
        convention: As of ``fusionblocks.metrics.evaluate``.
    """

    every: int = 1
    metrics: tuple[str, ...] = ("EN", "SD", "SF", "VIF", "Qabf", "SSIM")
    best: str = "Qabf"
    convention: str = "cddfuse"

    def __post_init__(self) -> None:
        _check_number("validation.every", self.every, least=1)
        check_choice("validation.best", self.best, self.metrics)


@dataclass(frozen=True)
class Recipe:
    """How a network is trained, from its first weights to its last.

    Args:
        phases: The phases in their order.
        model: Name of the network; None trains one that the caller brings.
        config: Fields of its configuration that differ from the paper's values.
        seed: Of the first weights, the order of the pairs, crops and noise.
        validation: How the network is judged.
    """

    phases: tuple[PhaseRecipe, ...]
    model: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    validation: ValidationRecipe = ValidationRecipe()

    def __post_init__(self) -> None:
        if not self.phases:
            raise ValueError("phases must hold at least one phase, got none")

    def plain(self) -> dict[str, Any]:
        """Return the recipe as plain dicts, lists and numbers, as JSON has them."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @property
    def fingerprint(self) -> str:
        """A digest of all values, equal for equal recipes."""
        return hashlib.sha256(json.dumps(self.plain(), sort_keys=True).encode()).hexdigest()[:16]


def load_recipe(source: str | Path | Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe.

    Args:
        source: A name of :func:`list_recipes`, a YAML file, or what such a file holds.
        changes: Values to put in the place of the recipe's, under dotted names:
            ``{"phases.fusion.epochs": 3, "config.channels": 16}``.

    Raises:
        FileNotFoundError: If there is neither such a recipe nor such a file.
        ValueError: If a key is unknown (the closest match is offered), missing, or has a wrong value.

    Example:
        >>> from fusionblocks.training import load_recipe
        >>> recipe = load_recipe("smfnet", {"phases.fusion.batch": 6})
        >>> [(phase.name, phase.epochs, phase.batch) for phase in recipe.phases]
        [('reconstruction', 40, 2), ('fusion', 80, 6)]
    """
    values = dict(source) if isinstance(source, Mapping) else _read(source)
    for name, value in (changes or {}).items():
        root, *path = name.split(".")
        if root == "phases" and path and path[0] not in (known := list(values.get("phases") or {})):
            raise ValueError(f"there is no phase {path[0]!r}{closest(path[0], known)}; known: {', '.join(known)}")
        values = _changed(values, [root, *path], value, name)
    phases = values.get("phases")
    if isinstance(phases, Mapping):
        named = {name: phase or {} for name, phase in phases.items()}
        wrong = next((name for name, phase in named.items() if not isinstance(phase, Mapping)), None)
        if wrong:
            raise ValueError(f"phases.{wrong} must be keys with values, got {named[wrong]!r}")
        values["phases"] = [{"name": name, **phase} for name, phase in named.items()]
    return build(Recipe, values, "")


def list_recipes() -> list[str]:
    """Return the names of the recipes that come with the library.

    Example:
        >>> from fusionblocks.training import list_recipes
        >>> list_recipes()
        ['fusionblocks', 'fusionblocks_natural', 'psfusion', 'sgafusion', 'sgdfuse', 'smfnet']
    """
    return sorted(file.stem for file in RECIPES.glob("*.yaml"))


def difference(ours: Mapping[str, Any], theirs: Mapping[str, Any], where: str = "") -> list[str]:
    """Return a line for each value in which two plain recipes differ."""
    lines = []
    for key in sorted({*ours, *theirs}):
        a, b = ours.get(key), theirs.get(key)
        if key == "phases" and a and b:
            a, b = ({phase["name"]: phase for phase in phases} for phases in (a, b))
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += difference(a, b, f"{where}{key}.")
        elif a != b:
            lines.append(f"{where}{key} is {_short(b)} there and {_short(a)} here")
    return lines


def _read(source: str | Path) -> dict[str, Any]:
    """Return what a recipe's file holds."""
    file = RECIPES / f"{source}.yaml" if str(source) in list_recipes() else Path(source)
    if not file.is_file():
        known = list_recipes()
        hint = closest(str(source), known)
        raise FileNotFoundError(f"recipe {source} is neither a file nor one of {', '.join(known)}{hint}")
    values = parse_value(file.read_text())
    if not isinstance(values, dict):
        raise ValueError(f"recipe {file} must hold keys with values, got {type(values).__name__}")
    return values


def _changed(values: Any, path: list[str], value: Any, name: str) -> dict[str, Any]:
    """Return a copy of nested dicts with one value put in."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{name} cannot be set: there are no keys above {'.'.join(path)}")
    key, *rest = path
    return {**values, key: _changed(values.get(key) or {}, rest, value, name) if rest else value}


def _short(value: Any) -> str:
    text = "absent" if value is None else json.dumps(value)
    return text if len(text) < 60 else f"{text[:57]}..."
