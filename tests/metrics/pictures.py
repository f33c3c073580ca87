"""Pictures for the tests of metrics: whole gray levels with detail, flat regions and edges."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor


def pictures(height: int = 48, width: int = 56, batch: int = 2, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return fused, infrared and visible, each ``(batch, 1, height, width)`` of ``uint8``."""
    rng = np.random.default_rng(seed)

    def one(smooth: float) -> np.ndarray:
        x = ndimage.gaussian_filter(rng.random((batch, height, width)), (0, smooth, smooth))
        x = (x - x.min()) / (x.max() - x.min()) * 255
        x[:, : height // 4, : width // 3] = 40  # sky
        x[:, height // 2 :, -width // 4 :] += 60
        return np.clip(np.round(x), 0, 255)

    infrared, visible = one(2.0), one(0.7)
    fused = np.round((infrared + visible) / 2)
    return tuple(torch.from_numpy(x.astype(np.uint8)).unsqueeze(1) for x in (fused, infrared, visible))


def arrays(*tensors: Tensor) -> list[list[np.ndarray]]:
    """Return per picture of the batch the float64 arrays of the tensors."""
    return [[x[i, 0].double().numpy() for x in tensors] for i in range(len(tensors[0]))]


def unit(*tensors: Tensor) -> list[Tensor]:
    """Return pictures in [0, 1] strictly, float64, that take gradients."""
    return [(0.05 + 0.9 * x.double() / 255).requires_grad_() for x in tensors]
