"""The published formulation of the usual eight metrics: one picture at a time, dense 2-D convolutions by SciPy.

Written from the formulas and the way the evaluators of the field compute them, as the yardstick of
``benchmarks.metrics``. Every function takes float64 gray levels ``(H, W)`` in 0..255.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.signal import convolve2d
from scipy.sparse import coo_matrix
from skimage.metrics import structural_similarity

SSIM_DATA_RANGE = 2  # what the published evaluators leave it at, on levels 0..255


def entropy(fused: np.ndarray) -> float:
    share = np.bincount(np.round(fused).astype(np.uint8).ravel()) / fused.size
    present = share[share > 0]
    return float(-(present * np.log2(present)).sum())


def spatial_frequency(fused: np.ndarray) -> float:
    rows, columns = (np.mean(np.diff(fused, axis=axis) ** 2) for axis in (1, 0))
    return float(np.sqrt(rows + columns))


def shared_information(first: np.ndarray, second: np.ndarray) -> float:
    """Mutual information in nats from a sparse contingency table of the levels that occur."""
    levels_a, rows = np.unique(first.ravel(), return_inverse=True)
    levels_b, columns = np.unique(second.ravel(), return_inverse=True)
    counts = coo_matrix((np.ones(first.size), (rows, columns)), shape=(levels_a.size, levels_b.size)).tocsr()
    counts.sum_duplicates()
    table = counts.tocoo()
    joint = table.data / first.size
    marginal_a = np.asarray(counts.sum(axis=1)).ravel()[table.row] / first.size
    marginal_b = np.asarray(counts.sum(axis=0)).ravel()[table.col] / first.size
    return float((joint * np.log(joint / (marginal_a * marginal_b))).sum())


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    first, second = first - first.mean(), second - second.mean()
    return float((first * second).sum() / np.sqrt((first**2).sum() * (second**2).sum()))


def gaussian_window(side: int, sigma: float) -> np.ndarray:
    axis = np.arange(side) - side // 2
    window = np.exp(-(axis[:, None] ** 2 + axis**2) / (2 * sigma**2))
    return window / window.sum()


def visual_information(reference: np.ndarray, fused: np.ndarray, noise: float = 2.0, tiny: float = 1e-10) -> float:
    """Pixel-domain VIF over four scales, windows of 17, 9, 5 and 3 pixels."""
    kept = total = 0.0
    for scale, side in enumerate((17, 9, 5, 3)):
        window = gaussian_window(side, side / 5)

        def local_mean(picture: np.ndarray, window: np.ndarray = window) -> np.ndarray:
            return convolve2d(picture, window, mode="valid")

        if scale:
            reference, fused = (local_mean(picture)[::2, ::2] for picture in (reference, fused))
        mean_r, mean_f = local_mean(reference), local_mean(fused)
        variance_r = np.maximum(local_mean(reference**2) - mean_r**2, 0)
        variance_f = np.maximum(local_mean(fused**2) - mean_f**2, 0)
        covariance = local_mean(reference * fused) - mean_r * mean_f

        gain = covariance / (variance_r + tiny)
        rest = variance_f - gain * covariance
        flat_r, flat_f = variance_r < tiny, variance_f < tiny
        gain[flat_r | flat_f] = 0
        rest[flat_r] = variance_f[flat_r]
        rest[flat_f] = 0
        variance_r[flat_r] = 0
        opposed = gain < 0
        rest[opposed] = variance_f[opposed]
        gain[opposed] = 0
        rest = np.maximum(rest, tiny)

        kept += np.log10(1 + gain**2 * variance_r / (rest + noise)).sum()
        total += np.log10(1 + variance_r / noise).sum()
    return float(kept / total) if total else 1.0


def edges(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sobel strength and orientation, the border padded with zeros."""
    across = np.array([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    down = np.array([[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]])
    gradient_x, gradient_y = (convolve2d(picture, kernel, mode="same") for kernel in (across, down))
    angle = np.full_like(picture, np.pi / 2)
    np.divide(gradient_y, gradient_x, out=angle, where=gradient_x != 0)
    angle = np.where(gradient_x != 0, np.arctan(angle), angle)
    return np.hypot(gradient_x, gradient_y), angle


def edge_transfer(source: tuple[np.ndarray, np.ndarray], fused: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """How much of a source's edges the fused picture keeps, by strength and orientation, a sigmoid each."""
    (strength_s, angle_s), (strength_f, angle_f) = source, fused
    weaker, stronger = np.minimum(strength_s, strength_f), np.maximum(strength_s, strength_f)
    ratio = np.where(strength_s == strength_f, strength_f, weaker / np.where(stronger > 0, stronger, 1))
    alignment = 1 - np.abs(angle_s - angle_f) / (np.pi / 2)
    by_strength = 0.9994 / (1 + np.exp(-15 * (ratio - 0.5)))
    by_angle = 0.9879 / (1 + np.exp(-22 * (alignment - 0.8)))
    return by_strength * by_angle


def edge_preservation(fused: np.ndarray, infrared: np.ndarray, visible: np.ndarray) -> float:
    of_fused, of_infrared, of_visible = edges(fused), edges(infrared), edges(visible)
    kept = edge_transfer(of_infrared, of_fused) * of_infrared[0] + edge_transfer(of_visible, of_fused) * of_visible[0]
    return float(kept.sum() / (of_infrared[0] + of_visible[0]).sum())


def similarity(fused: np.ndarray, source: np.ndarray) -> float:
    return float(structural_similarity(fused, source, data_range=SSIM_DATA_RANGE))


METRICS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], float]] = {
    "EN": lambda fused, infrared, visible: entropy(fused),
    "SD": lambda fused, infrared, visible: float(np.std(fused)),
    "SF": lambda fused, infrared, visible: spatial_frequency(fused),
    "MI": lambda fused, infrared, visible: shared_information(fused, infrared) + shared_information(fused, visible),
    "SCD": lambda fused, infrared, visible: (
        correlation(infrared, fused - visible) + correlation(visible, fused - infrared)
    ),
    "VIF": lambda fused, infrared, visible: visual_information(infrared, fused) + visual_information(visible, fused),
    "Qabf": edge_preservation,
    "SSIM": lambda fused, infrared, visible: similarity(fused, infrared) + similarity(fused, visible),
}
"""The eight metrics as one function each of the fused, the infrared and the visible picture."""
