"""Gray pictures for the metrics: blobs on a ramp, with grain, so that no histogram and no window is trivial."""

from __future__ import annotations

import torch
from torch import Tensor

from fusionblocks.image import gaussian_blur


def gray(*shape: int, seed: int = 0) -> Tensor:
    """Return uint8 gray levels ``(B, 1, H, W)`` for ``gray(B, H, W)``, others for each seed."""
    generator = torch.Generator().manual_seed(seed)
    batch, height, width = shape
    noise = torch.rand(batch, 1, height, width, generator=generator, dtype=torch.float64)
    blobs = gaussian_blur(noise, 1.5)
    blobs = (blobs - blobs.amin((2, 3), keepdim=True)) / (
        blobs.amax((2, 3), keepdim=True) - blobs.amin((2, 3), keepdim=True)
    )
    ramp = torch.linspace(0, 1, width, dtype=torch.float64)
    return ((0.7 * blobs + 0.2 * ramp + 0.1 * noise) * 255).round().to(torch.uint8)


def triple(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return a result and its two sources, uint8: the rounded mean of both, infrared, visible."""
    infrared, visible = gray(*shape, seed=2 * seed), gray(*shape, seed=2 * seed + 1)
    fused = ((infrared.double() + visible.double()) / 2).round().to(torch.uint8)
    return fused, infrared, visible
