"""The map between two cameras from points that both see."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np

from fusionblocks.image.planar import MODELS, mapped, unit

LEAST = {"shift": 1, "similarity": 2, "affine": 3, "homography": 4}
"""Points that determine a model."""
EXACT = 2.0
"""Visible pixels by which a simpler model may miss one of four points before a homography goes through all."""
CLEARLY = 0.85
"""Share of the simpler model's error that the richer one must not exceed to be chosen."""


def read_points(path: str | os.PathLike[str]) -> np.ndarray:
    """Return the points of a CSV file, ``(N, 4)``: infrared x and y, visible x and y; a heading is skipped.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a row does not hold four numbers; the message names the file and the line.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    rows: list[list[float]] = []
    with open(path, newline="", encoding="utf-8-sig") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            cells = [cell.strip() for cell in row]
            if not any(cells) or cells[0].startswith("#"):
                continue
            try:
                values = [float(cell) for cell in cells]
            except ValueError:
                if not rows and number == 1:
                    continue  # a heading
                values = []
            if len(values) != 4:
                raise ValueError(
                    f"{path}, line {number}: expected infrared x and y, visible x and y, got {','.join(row)!r}"
                )
            rows.append(values)
    return np.array(rows, np.float64).reshape(-1, 4)


def check_points(points: Any) -> np.ndarray:
    """Return points as ``(N, 4)`` float64.

    Raises:
        ValueError: If there are fewer than four, a number is not finite, or they lie on a line.
    """
    array = np.asarray(points, np.float64)
    if array.ndim == 3 and array.shape[1:] == (2, 2):
        array = array.reshape(-1, 4)
    if array.ndim != 2 or array.shape[1] != 4 or len(array) < 4:
        raise ValueError(
            "points must be at least four rows of infrared x and y, visible x and y, "
            f"got an array of shape {np.shape(points)}"
        )
    if not np.isfinite(array).all():
        raise ValueError("points must be finite")
    for name, side in (("infrared", array[:, :2]), ("visible", array[:, 2:])):
        spread = np.linalg.svd(side - side.mean(0), compute_uv=False)
        if spread[1] < 1e-3 * max(spread[0], 1e-9):
            raise ValueError(f"points must not all lie on a line, as those of the {name} picture do")
    return array


def fit(points: np.ndarray, model: str) -> np.ndarray:
    """Return the map of a model that lays points on points with the least squares.

    Args:
        points: ``(N, 4)``.
        model: One of ``MODELS``.
    """
    here, there = points[:, :2], points[:, 2:]
    if model == "shift":
        matrix = np.eye(3)
        matrix[:2, 2] = (there - here).mean(0)
        return matrix
    if model == "similarity":
        middle_here, middle_there = here.mean(0), there.mean(0)
        a, b = (x[:, 0] + 1j * x[:, 1] for x in (here - middle_here, there - middle_there))
        turn = (a.conj() @ b) / (a.conj() @ a)
        matrix = np.array([[turn.real, -turn.imag, 0], [turn.imag, turn.real, 0], [0, 0, 1.0]])
        matrix[:2, 2] = middle_there - matrix[:2, :2] @ middle_here
        return matrix
    if model == "affine":
        ones = np.concatenate([here, np.ones((len(here), 1))], axis=1)
        return np.concatenate([np.linalg.lstsq(ones, there, rcond=None)[0].T, [[0, 0, 1]]])
    return _homography(here, there)


def _homography(here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Return the homography by the direct linear transform on normalised points, then by Gauss-Newton."""
    normal_here, normal_there = _normal(here), _normal(there)
    a, b = mapped(normal_here, here), mapped(normal_there, there)
    zero, one = np.zeros(len(a)), np.ones(len(a))
    rows = [
        [a[:, 0], a[:, 1], one, zero, zero, zero, -b[:, 0] * a[:, 0], -b[:, 0] * a[:, 1], -b[:, 0]],
        [zero, zero, zero, a[:, 0], a[:, 1], one, -b[:, 1] * a[:, 0], -b[:, 1] * a[:, 1], -b[:, 1]],
    ]
    system = np.concatenate([np.stack(row, axis=1) for row in rows])
    matrix = unit(np.linalg.svd(system)[2][-1].reshape(3, 3))
    for _ in range(10):  # the squares of distances, not of the system's rows
        x = np.concatenate([a, one[:, None]], axis=1)
        depth = x @ matrix[2]
        there_now = (x @ matrix[:2].T) / depth[:, None]
        jacobian = np.zeros((len(a), 2, 8))
        jacobian[:, 0, 0:3] = jacobian[:, 1, 3:6] = x / depth[:, None]
        jacobian[:, :, 6:8] = -there_now[:, :, None] * (a / depth[:, None])[:, None, :]
        step = np.linalg.lstsq(jacobian.reshape(-1, 8), (b - there_now).reshape(-1), rcond=None)[0]
        matrix = matrix + np.append(step, 0).reshape(3, 3)
    return unit(np.linalg.inv(normal_there) @ matrix @ normal_here)


def _normal(points: np.ndarray) -> np.ndarray:
    middle = points.mean(0)
    scale = np.sqrt(2) / max(np.linalg.norm(points - middle, axis=1).mean(), 1e-9)
    return np.array([[scale, 0, -scale * middle[0]], [0, scale, -scale * middle[1]], [0, 0, 1]])


def left_out(points: np.ndarray, model: str) -> float:
    """Return how far, on average, a point lies from where the others put it; infinite if they are too few."""
    if len(points) <= LEAST[model]:
        return float("inf")
    distances = []
    for i in range(len(points)):
        others = np.delete(points, i, axis=0)
        distances.append(np.linalg.norm(mapped(fit(others, model), points[i : i + 1, :2]) - points[i, 2:]))
    return float(np.sqrt(np.mean(np.square(distances))))


def simplest(points: np.ndarray) -> str:
    """Return the simplest model that explains points: richer ones put a point that is left out no nearer by much."""
    chosen, error = "shift", left_out(points, "shift")
    for model in list(MODELS)[1:]:
        richer = left_out(points, model)
        if np.isfinite(richer) and richer < CLEARLY * error:
            chosen, error = model, richer
    if len(points) == LEAST["homography"] and error > EXACT:
        return "homography"  # four points leave none over to judge it by
    return chosen
