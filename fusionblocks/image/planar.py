"""Planar maps between the pixels of two pictures: ``(3, 3)`` matrices on ``(x, y)``, pixel centres at integers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

#: The families of maps, each within the next, with their free parameters.
MODELS = {"shift": 2, "similarity": 4, "affine": 6, "homography": 8}


def mapped(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return points ``(N, 2)`` mapped by a matrix; one on the horizon becomes infinite."""
    x = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ np.asarray(matrix, np.float64).T
    with np.errstate(divide="ignore", invalid="ignore"):
        return x[:, :2] / x[:, 2:]


def unit(matrix: np.ndarray) -> np.ndarray:
    """Return a matrix with its last element 1."""
    return matrix / matrix[2, 2]


def scaling(x: float, y: float | None = None) -> np.ndarray:
    """Return the map of a picture's pixels to those of a copy that is ``x`` times as wide and ``y`` times as high.

    Both pictures have their corners in common, half a pixel beyond the centres of the outermost pixels.
    """
    y = x if y is None else y
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])


def similarity(scale: float, degrees: float, shift: tuple[float, float], centre: tuple[float, float]) -> np.ndarray:
    """Return the map that turns and scales around a centre and moves it.

    Args:
        scale: The factor.
        degrees: The angle, from x towards y.
        shift: What is added.
        centre: The point that only moves.
    """
    angle = np.deg2rad(degrees)
    a, b = scale * np.cos(angle), scale * np.sin(angle)
    turn = np.array([[a, -b], [b, a]])
    matrix = np.eye(3)
    matrix[:2, :2] = turn
    matrix[:2, 2] = np.add(centre, shift) - turn @ np.asarray(centre)
    return matrix


def corners_of(size: Sequence[int]) -> np.ndarray:
    """Return the centres of the corner pixels of a picture ``(height, width)``, ``(4, 2)``, clockwise."""
    height, width = size
    return np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float64)


def shared_grid(
    matrix: np.ndarray, infrared: Sequence[int], visible: Sequence[int], *, inner: float = 0.8, count: int = 12
) -> np.ndarray:
    """Return points of the infrared picture on a grid over the inner part of what both see, ``(N, 2)``.

    Args:
        matrix: The map from infrared to visible pixels.
        infrared: Height and width of the infrared picture.
        visible: Height and width of the visible picture.
        inner: Share of the sides of the box around what both see.
        count: Points a side.
    """
    height, width = infrared
    dense = np.stack(np.meshgrid(np.linspace(0, width - 1, 65), np.linspace(0, height - 1, 65)), -1).reshape(-1, 2)
    there = mapped(matrix, dense)
    seen = (there >= 0).all(1) & (there[:, 0] <= visible[1] - 1) & (there[:, 1] <= visible[0] - 1)
    if not seen.any():
        return np.empty((0, 2))
    low, high = dense[seen].min(0), dense[seen].max(0)
    middle, half = (low + high) / 2, inner * (high - low) / 2
    sides = [np.linspace(middle[i] - half[i], middle[i] + half[i], count) for i in (0, 1)]
    return np.stack(np.meshgrid(*sides), -1).reshape(-1, 2)


def mean_displacement(first: np.ndarray, second: np.ndarray, infrared: Sequence[int], visible: Sequence[int]) -> float:
    """Return how far two maps lie apart in visible pixels, on average over the inner 80 % of what both pictures see.

    Args:
        first: A map from infrared to visible pixels; what it lets both see counts.
        second: Another one.
        infrared: Height and width of the infrared picture.
        visible: Height and width of the visible picture.

    Returns:
        The mean distance; infinite if nothing is seen by both.
    """
    points = shared_grid(first, infrared, visible)
    if not len(points):
        return float("inf")
    return float(np.linalg.norm(mapped(first, points) - mapped(second, points), axis=1).mean())


def sample(picture: Tensor, matrix: np.ndarray, size: Sequence[int], *, mode: str = "bilinear") -> Tensor:
    """Return a picture ``(B, C, h, w)`` as seen by the pixels of another, ``(B, C, H, W)``; zero where it ends.

    Args:
        picture: The picture.
        matrix: The map from the pixels of the result to those of ``picture``.
        size: Height and width of the result.
        mode: ``"bilinear"``, ``"bicubic"`` or ``"nearest"``.
    """
    grid = sampling_grid(matrix, size, picture.shape[-2:]).to(picture)
    grid = grid.expand(picture.shape[0], -1, -1, -1)
    return F.grid_sample(picture, grid, mode=mode, padding_mode="zeros", align_corners=True)


def sampling_grid(matrix: np.ndarray, size: Sequence[int], source: Sequence[int]) -> Tensor:
    """Return where the pixels of a picture lie in another, ``(1, H, W, 2)`` as ``grid_sample`` takes them, float64."""
    height, width = size
    m = torch.from_numpy(np.array(matrix, np.float64))
    x = torch.arange(width, dtype=torch.float64)
    y = torch.arange(height, dtype=torch.float64)[:, None]
    depth = m[2, 0] * x + m[2, 1] * y + m[2, 2]
    behind = depth <= 1e-9
    depth = torch.where(behind, torch.ones_like(depth), depth)
    u = (m[0, 0] * x + m[0, 1] * y + m[0, 2]) / depth
    v = (m[1, 0] * x + m[1, 1] * y + m[1, 2]) / depth
    u, v = (torch.where(behind, torch.full_like(place, -1e6), place) for place in (u, v))
    scale = [2 / max(side - 1, 1) for side in (source[1], source[0])]
    return torch.stack([u * scale[0] - 1, v * scale[1] - 1], dim=-1)[None]


def inside(matrix: np.ndarray, size: Sequence[int], source: Sequence[int], *, margin: float = 0.0) -> Tensor:
    """Return which pixels of a picture lie within another, ``margin`` pixels from its edge or more, ``(H, W)`` bool."""
    grid = sampling_grid(matrix, size, source)[0]
    x = (grid[..., 0] + 1) / 2 * max(source[1] - 1, 1)
    y = (grid[..., 1] + 1) / 2 * max(source[0] - 1, 1)
    low, rounding = margin, 1e-6
    wide = (x >= low - rounding) & (x <= source[1] - 1 - low + rounding)
    return wide & (y >= low - rounding) & (y <= source[0] - 1 - low + rounding)
