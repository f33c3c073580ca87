"""A map made exact by Gauss-Newton: the edges of many pairs at once, from small pictures to large ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fusionblocks.alignment.features import between, edges, resized, slopes, smooth
from fusionblocks.image.planar import MODELS, inside, sample, unit

MOST_PIXELS = 3e5
"""Pixels of all pairs that a step looks at; beyond that every second, every third, ... row and column counts."""
NEIGHBOURS = 4
"""Pixels, each way, that judge together whether both pictures show the same edges."""

# how maps move: generators on coordinates that run from -1 to 1, each model the first so many
GENERATORS = np.zeros((8, 3, 3))
GENERATORS[0][0, 2] = GENERATORS[1][1, 2] = 1  # shifts
GENERATORS[2][0, 0] = GENERATORS[2][1, 1] = 1  # scale
GENERATORS[3][0, 1], GENERATORS[3][1, 0] = -1, 1  # turn
GENERATORS[4][0, 0], GENERATORS[4][1, 1] = 1, -1  # two shears
GENERATORS[5][0, 1] = GENERATORS[5][1, 0] = 1
GENERATORS[6][2, 0] = GENERATORS[7][2, 1] = 1  # two tilts


@dataclass(frozen=True)
class Level:
    """Edges of all pairs at one size: their strength, and how it changes along x and y, ``(B, 3, h, w)``.

    Args:
        infrared: Of the infrared pictures.
        visible: Of the visible ones, every ``stride``-th row and column.
        to_infrared: From infrared pixels to those of ``infrared``.
        to_visible: From visible pixels to those of ``visible``.
        stride: Pixels of the level from one row of ``visible`` to the next.
    """

    infrared: Tensor
    visible: Tensor
    to_infrared: np.ndarray
    to_visible: np.ndarray
    stride: int


def level_of(infrared: Tensor, visible: Tensor, side: float, scale: float, sigma: float, window: float) -> Level:
    """Return edges at the size where the visible picture's longer side is ``side``, the infrared's pixels as large."""
    factor = min(1.0, side / max(visible.shape[-2:]))
    small = resized(visible, factor)
    other = resized(infrared, min(1.0, factor * scale))
    stride = max(1, round((small.numel() / MOST_PIXELS) ** 0.5))
    every = np.diag([1 / stride, 1 / stride, 1.0])
    return Level(
        _with_slopes(edges(other, sigma=sigma, window=window)),
        _with_slopes(edges(small, sigma=sigma, window=window))[..., ::stride, ::stride].contiguous(),
        between(infrared.shape[-2:], other.shape[-2:]),
        every @ between(visible.shape[-2:], small.shape[-2:]),
        stride,
    )


def _with_slopes(x: Tensor) -> Tensor:
    return torch.cat([x, *slopes(x)], dim=1)


def refine(level: Level, weights: Tensor, matrix: np.ndarray, model: str, *, steps: int) -> np.ndarray:
    """Return the map from infrared to visible pixels that lays edges on edges.

    Args:
        level: The edges.
        weights: How much each visible pixel counts, ``(B, 1, H, W)``, of any size.
        matrix: Where to begin.
        model: One of ``MODELS``.
        steps: The most steps.
    """
    size = level.visible.shape[-2:]
    inverse = unit(level.to_infrared @ np.linalg.inv(matrix) @ np.linalg.inv(level.to_visible))
    half = max(size) / 2
    normal = np.array([[half, 0, (size[1] - 1) / 2], [0, half, (size[0] - 1) / 2], [0, 0, 1]])
    chosen = GENERATORS[: MODELS[model]]
    fields = _fields(chosen, normal, size).to(level.visible)  # (P, 2, H, W)
    weights = F.interpolate(weights, size, mode="area")
    for _ in range(steps):
        warped, there = _warped(level, inverse)
        residual = warped[:, :1] - level.visible[:, :1]
        weight = there * weights * _trust(warped[:, :1], level.visible[:, :1], residual)
        # slopes of the warped edges in pixels of the visible grid, meant with those of the visible edges
        turn = torch.from_numpy(inverse[:2, :2] / inverse[2, 2]).to(warped)
        slope = torch.einsum("bihw,ij->bjhw", warped[:, 1:], turn) + level.stride * level.visible[:, 1:]
        jacobian = torch.einsum("bihw,pihw->pbhw", slope / 2, fields).flatten(1)
        heavy = jacobian * weight.flatten()
        hessian = (heavy @ jacobian.T).double().numpy()
        gradient = (heavy @ residual.flatten()).double().numpy()
        damping = np.diag(1e-3 * np.diag(hessian) + 1e-6)
        step = -np.linalg.solve(hessian + damping, gradient)
        change = np.eye(3) + np.tensordot(step, chosen, axes=1)
        inverse = unit(inverse @ normal @ change @ np.linalg.inv(normal))
        if np.abs(step).max() * half < 0.02:
            break
    return unit(np.linalg.inv(level.to_visible) @ np.linalg.inv(inverse) @ level.to_infrared)


def agreement_of(level: Level, weights: Tensor, matrix: np.ndarray) -> float:
    """Return how well edges agree under a map from infrared to visible pixels, at most 1.

    It is their correlation where both pictures are, times the root of the share of the visible picture where they are:
    chance correlates few pixels more than many.
    """
    inverse = unit(level.to_infrared @ np.linalg.inv(matrix) @ np.linalg.inv(level.to_visible))
    warped, there = _warped(level, inverse)
    weights = F.interpolate(weights, level.visible.shape[-2:], mode="area")
    weight = there * weights
    own, other = warped[:, :1], level.visible[:, :1]
    energies = (weight * own**2).sum() * (weight * other**2).sum()
    share = weight.sum() / weights.sum().clamp(min=1e-12)
    return float((weight * own * other).sum() / energies.clamp(min=1e-12).sqrt() * share.sqrt())


def _fields(generators: np.ndarray, normal: np.ndarray, size: Sequence[int]) -> Tensor:
    """Return how far each pixel moves with each parameter, ``(P, 2, H, W)`` in pixels, to first order."""
    y, x = np.mgrid[: size[0], : size[1]]
    points = np.stack([(x - normal[0, 2]) / normal[0, 0], (y - normal[1, 2]) / normal[1, 1], np.ones(size)])
    moved = np.einsum("pij,jhw->pihw", generators, points)
    return torch.from_numpy((moved[:, :2] - points[None, :2] * moved[:, 2:]) * normal[0, 0])


def _warped(level: Level, inverse: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return the infrared edges as the visible grid sees them, and where they are."""
    size, source = level.visible.shape[-2:], level.infrared.shape[-2:]
    there = inside(inverse, size, source, margin=3).to(level.visible)[None, None]
    return sample(level.infrared, inverse, size), there


def _trust(own: Tensor, other: Tensor, residual: Tensor) -> Tensor:
    """Return how much pixels count: more where both pictures show the same edges around, less where they differ."""
    products = torch.cat([own * other, own**2, other**2], dim=1)
    near = smooth(F.avg_pool2d(products, NEIGHBOURS, ceil_mode=True), 1.5)
    local = near[:, :1] / (near[:, 1:2] * near[:, 2:] + 1e-6).sqrt()
    local = F.interpolate(local.clamp(min=0), scale_factor=NEIGHBOURS)[..., : own.shape[-2], : own.shape[-1]]
    return (0.05 + local**2) / (1 + (residual / 1.5) ** 2)
