"""The map of a rig from its own pictures: searched, made exact, and judged by two halves that do not see each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fusionblocks.alignment.refine import Level, agreement_of, level_of, refine
from fusionblocks.alignment.search import search
from fusionblocks.image.planar import MODELS, mapped

CLEARLY = 0.01
"""Share of the agreement that a richer model must gain on data that it has not seen."""
SIDES = (128, 256, 512)
"""Longer sides of the visible pictures, from the first to the last."""


@dataclass(frozen=True)
class Estimate:
    """A map, what either half of the data finds by itself, and the model that was chosen."""

    matrix: np.ndarray
    halves: tuple[np.ndarray, np.ndarray]
    model: str


def groups_of(visible: Tensor) -> Tensor:
    """Return two halves of the data, ``(2, B, 1, H, W)``: every other pair, or of a lone pair fields of a board."""
    count, _, height, width = visible.shape
    groups = torch.zeros(2, count, 1, height, width)
    if count > 1:
        groups[0, ::2], groups[1, 1::2] = 1, 1
        return groups
    y, x = torch.arange(height) * 4 // height, torch.arange(width) * 4 // width
    board = (y[:, None] + x) % 2
    groups[0, 0, 0], groups[1, 0, 0] = board, 1 - board
    return groups


def estimate(
    infrared: Tensor,
    visible: Tensor,
    *,
    model: str | None,
    scales: tuple[float, float],
    same_view: float,
    degrees: float,
) -> Estimate:
    """Return the map of pairs of one rig.

    Args:
        infrared: ``(B, 1, h, w)`` in [0, 1].
        visible: ``(B, 1, H, W)`` in [0, 1].
        model: One of ``MODELS``, or None for the simplest that explains the pairs.
        scales: The least and the largest scale.
        same_view: The scale at which both pictures show the same view, which a shift has.
        degrees: The largest turn.
    """
    groups = groups_of(visible)
    everything = groups.sum(0)
    found = search(infrared, visible, groups, scales=scales, degrees=degrees)
    scale = float(np.sqrt(np.abs(np.linalg.det(found[0][:2, :2]))))
    levels = [level_of(infrared, visible, SIDES[0], scale, 2.0, 10.0)]
    levels += [level_of(infrared, visible, side, scale, 1.2, 8.0) for side in SIDES]
    begun = [_begun(levels, weights, start) for start, weights in zip(found, (everything, *groups), strict=True)]
    models = [name for name in MODELS if model in (None, name)]
    # each half makes the map of all exact, as each model; what a half finds by itself only judges the result
    halves = {name: [_as(levels[2], weights, begun[0], name, same_view) for weights in groups] for name in models}
    chosen = model or _simplest(levels[2], groups, halves)

    def exact(weights: Tensor, matrix: np.ndarray) -> np.ndarray:
        matrix = _as(levels[2], weights, matrix, chosen, same_view)
        return refine(levels[3], weights, matrix, chosen, steps=10)

    matrix = exact(everything, begun[0])
    first, second = (exact(weights, start) for weights, start in zip(groups, begun[1:], strict=True))
    return Estimate(matrix, (first, second), chosen)


def _simplest(level: Level, groups: Tensor, halves: dict[str, list[np.ndarray]]) -> str:
    """Return the simplest model that, fitted to one half, explains the other about as well as any."""
    explained = {
        name: sum(agreement_of(level, groups[1 - i], matrix) for i, matrix in enumerate(matrices))
        for name, matrices in halves.items()
    }
    best = max(explained.values())
    return next(name for name, value in explained.items() if value >= best - CLEARLY * abs(best))


def _begun(levels: list[Level], weights: Tensor, start: np.ndarray) -> np.ndarray:
    """Return a map of the search made exact as a similarity, from small pictures to larger ones."""
    for level, steps in zip(levels[:3], (15, 10, 10), strict=True):
        start = refine(level, weights, start, "similarity", steps=steps)
    return start


def _as(level: Level, weights: Tensor, matrix: np.ndarray, model: str, same_view: float) -> np.ndarray:
    """Return a similarity made exact as another model."""
    if model == "shift":
        # about the middle of the picture the shift is that of the similarity
        middle = (np.array(level.infrared.shape[:-3:-1], np.float64) - 1) / 2
        middle = mapped(np.linalg.inv(level.to_infrared), middle[None])
        shifted = np.diag([same_view, same_view, 1.0])
        shifted[:2, 2] = (mapped(matrix, middle) - same_view * middle)[0]
        return refine(level, weights, shifted, "shift", steps=10)
    for name in list(MODELS)[2 : list(MODELS).index(model) + 1]:
        matrix = refine(level, weights, matrix, name, steps=10)
    return matrix
