"""Every scale, turn and shift of one picture over another, scored at once by Fourier transforms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fusionblocks.alignment.features import between, orientations, resized
from fusionblocks.image.planar import corners_of, inside, sample, scaling, similarity, unit

COARSE = 128
"""Width or height, the longer, of the visible pictures in which is searched."""
LEAST_SHARED = 0.35
"""Share of the smaller picture that the other must see."""


def search(
    infrared: Tensor,
    visible: Tensor,
    groups: Tensor,
    *,
    scales: tuple[float, float],
    degrees: float,
) -> list[np.ndarray]:
    """Return the best similarity of all pictures together, then that of each group by itself, ``(3, 3)`` each.

    Args:
        infrared: Pictures ``(B, 1, h, w)``.
        visible: Pictures ``(B, 1, H, W)``.
        groups: Which pixels of which visible picture belong to which group, ``(G, B, 1, H, W)`` of 0 and 1.
        scales: The least and the largest scale from infrared to visible pixels.
        degrees: The largest turn.
    """
    size = visible.shape[-2:]
    small = resized(visible, COARSE / max(size))
    shape = (small.shape[-2] * 2, small.shape[-1] * 2)
    weights = torch.nn.functional.interpolate(groups.flatten(0, 1), small.shape[-2:], mode="area").unflatten(
        0, groups.shape[:2]
    )
    features = orientations(small)
    there = torch.fft.rfft2(weights * features, shape)  # (G, B, C, ...)
    energy_there = torch.fft.rfft2(weights * features.square().sum(1, keepdim=True), shape)
    weights_there = torch.fft.rfft2(weights, shape)
    to_small = between(size, small.shape[-2:])

    best: list[tuple[float, np.ndarray]] = [(-np.inf, np.eye(3))] * (1 + len(groups))
    steps = max(2, round(np.log(scales[1] / scales[0]) / np.log(1.03)) + 1)
    turns = max(1, 2 * round(degrees / 1.5) + 1)
    for scale in np.geomspace(*scales, steps):
        for turn in np.linspace(-degrees, degrees, turns):
            placed, canvas, mask = _placed(infrared, float(scale), float(turn), to_small)
            for i, (score, shift) in enumerate(
                _scores(placed, mask, there, energy_there, weights_there, shape, small.shape[-2:])
            ):
                if score > best[i][0]:
                    move = np.array([[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1.0]])
                    best[i] = score, unit(np.linalg.inv(to_small) @ move @ canvas)
    return [matrix for _, matrix in best]


def _placed(infrared: Tensor, scale: float, turn: float, to_small: np.ndarray) -> tuple[Tensor, np.ndarray, Tensor]:
    """Return the features of the infrared pictures, turned and scaled to the small visible ones, and where they are.

    The second result is the map from infrared pixels to those of the canvas.
    """
    size = infrared.shape[-2:]
    factor = scale * to_small[0, 0]
    small = resized(infrared, min(1.0, factor))
    to_canvas = similarity(factor, turn, (0, 0), (0, 0))
    corners = corners_of(size) @ to_canvas[:2, :2].T
    low, high = corners.min(0), corners.max(0)
    width, height = (int(np.ceil(side)) + 1 for side in high - low)
    to_canvas[:2, 2] -= low
    into_small = scaling(small.shape[-1] / size[1], small.shape[-2] / size[0]) @ np.linalg.inv(to_canvas)
    picture = sample(small, into_small, (height, width))
    mask = inside(into_small, (height, width), small.shape[-2:], margin=0).to(picture)[None, None]
    # gradients across the edge of the picture are not the scene's
    filled = picture + (1 - mask) * picture.sum((2, 3), keepdim=True) / mask.sum()
    inner = inside(into_small, (height, width), small.shape[-2:], margin=2.5).to(picture)[None, None]
    return orientations(filled) * inner, to_canvas, inner


def _scores(
    placed: Tensor,
    mask: Tensor,
    there: Tensor,
    energy_there: Tensor,
    weights_there: Tensor,
    shape: Sequence[int],
    size: Sequence[int],
) -> list[tuple[float, tuple[int, int]]]:
    """Return the best correlation over all shifts and its shift ``(x, y)``: of all pictures, then of each group."""
    height, width = placed.shape[-2:]
    if height > shape[0] or width > shape[1]:
        return [(-np.inf, (0, 0))] * (1 + len(there))
    here = torch.fft.rfft2(placed, shape).conj()
    energy_here = torch.fft.rfft2(placed.square().sum(1, keepdim=True), shape).conj()
    mask_here = torch.fft.rfft2(mask, shape).conj()

    def correlated(first: Tensor, second: Tensor) -> Tensor:
        return torch.fft.irfft2((first * second).sum((1, 2)), shape)  # over pictures and channels

    products = correlated(here, there)
    here_energies = correlated(energy_here, weights_there)
    there_energies = correlated(mask_here, energy_there)
    shared = correlated(mask_here, weights_there)
    sums = [torch.cat([x.sum(0, keepdim=True), x]) for x in (products, here_energies, there_energies, shared)]
    full = torch.fft.irfft2(weights_there[:, :, 0], shape).flatten(1).sum(1)
    full = torch.cat([full.sum(0, keepdim=True), full])
    area = float(mask.sum()) / (size[0] * size[1])
    least = LEAST_SHARED * full * min(1.0, area)
    values = sums[0] / (sums[1] * sums[2]).clamp(min=1e-12).sqrt()
    # chance correlates few pixels more than many
    values = values * (sums[3] / full[:, None, None]).clamp(min=0).sqrt()
    values = torch.where(sums[3] >= least[:, None, None], values, torch.full_like(values, -torch.inf))
    results = []
    for value in values:
        place = int(value.argmax())
        y, x = divmod(place, shape[1])
        # shifts beyond the visible picture are those to the other side
        x, y = x - shape[1] if x >= size[1] else x, y - shape[0] if y >= size[0] else y
        results.append((float(value.flatten()[place]), (x, y)))
    return results
