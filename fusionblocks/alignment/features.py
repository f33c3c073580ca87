"""What both modalities show alike: where edges are and how they run, not how bright anything is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fusionblocks.image.filters import gaussian_blur
from fusionblocks.image.planar import scaling


def smooth(x: Tensor, sigma: float) -> Tensor:
    """Return maps blurred by a Gaussian of three standard deviations to each side, borders repeated."""
    return gaussian_blur(x, sigma, 2 * math.ceil(3 * sigma) + 1, border="replicate")


def slopes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return central differences along x and y."""
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    return (x[..., 1:-1, 2:] - x[..., 1:-1, :-2]) / 2, (x[..., 2:, 1:-1] - x[..., :-2, 1:-1]) / 2


def orientations(x: Tensor, *, sigma: float = 1.0, window: float = 6.0) -> Tensor:
    """Return how edges run, whichever side is brighter: ``(B, 4, H, W)``, even functions of the gradient's angle.

    An edge counts by its strength beside that of its surroundings, so that weak edges in dark places count as well.

    Args:
        x: Pictures ``(B, 1, H, W)``.
        sigma: Of the blur before the gradients, pixels.
        window: Of the surroundings, pixels.
    """
    along_x, along_y = slopes(smooth(x, sigma))
    energy = along_x**2 + along_y**2
    strength = energy.sqrt()
    near = smooth(strength, window)
    strength = (strength / (near + 0.25 * near.mean((2, 3), keepdim=True) + 1e-6)).clamp(max=4)
    # the cosine and the sine of twice the angle, and of four times it
    cos2, sin2 = (along_x**2 - along_y**2) / (energy + 1e-12), 2 * along_x * along_y / (energy + 1e-12)
    cos4, sin4 = cos2**2 - sin2**2, 2 * cos2 * sin2
    return strength * torch.cat([cos2, sin2, 0.5 * cos4, 0.5 * sin4], dim=1)


def edges(x: Tensor, *, sigma: float = 1.2, window: float = 8.0) -> Tensor:
    """Return the gradient's magnitude without the mean and with the spread of its surroundings, ``(B, 1, H, W)``.

    Args:
        x: Pictures ``(B, 1, H, W)``.
        sigma: Of the blur before the gradients, pixels.
        window: Of the surroundings, pixels.
    """
    along_x, along_y = slopes(smooth(x, sigma))
    strength = (along_x**2 + along_y**2 + 1e-12).sqrt()
    mean = smooth(strength, window)
    variance = (smooth(strength**2, window) - mean**2).clamp(min=0)
    floor = 0.05 * variance.mean((2, 3), keepdim=True) + 1e-8
    return ((strength - mean) / (variance + floor).sqrt()).clamp(-3, 3)


def resized(x: Tensor, factor: float) -> Tensor:
    """Return pictures at another scale, without aliasing; corners stay corners."""
    height, width = (max(8, round(side * factor)) for side in x.shape[-2:])
    return F.interpolate(x, (height, width), mode="bilinear", antialias=True, align_corners=False)


def between(size: Sequence[int], other: Sequence[int]) -> np.ndarray:
    """Return the map from the pixels of a picture to those of a resized copy."""
    return scaling(other[1] / size[1], other[0] / size[0])
