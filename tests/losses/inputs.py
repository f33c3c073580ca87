"""Inputs for every term: pictures, features, labels and noise by the names that the terms ask for."""

from __future__ import annotations

import torch
from torch import Tensor

FEATURES = tuple(f"{part}_{modality}" for part in ("base", "detail", "graph") for modality in ("infrared", "visible"))


def inputs(
    height: int = 14, width: int = 17, *, batch: int = 2, channels: int = 3, dtype: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    """Return all inputs, reproducible; ``channels`` are those of the fused picture."""
    generator = torch.Generator().manual_seed(height * width)

    def random(*shape: int) -> Tensor:
        return torch.rand(batch, *shape, height, width, generator=generator, dtype=torch.float64).to(dtype)

    return {
        "fused": random(channels),
        "infrared": random(1),
        "visible": random(3),
        "infrared_reconstruction": random(1),
        "visible_reconstruction": random(1),
        "mask": random(1) > 0.7,
        **{name: random(4) - 0.5 for name in FEATURES},
        "segmentation": 4 * random(5) - 2,
        "labels": torch.randint(5, (batch, height, width), generator=generator),
        "binary": 4 * random(2) - 2,
        "binary_labels": random(1) > 0.5,
        "boundary": 4 * random(2) - 2,
        "boundary_labels": random(1) > 0.8,
        "noise_prediction": random(3) - 0.5,
        "noise": random(3) - 0.5,
    }


def constant(level: float, **options: int) -> dict[str, Tensor]:
    """Return all inputs, every float one constant."""
    return {name: torch.full_like(x, level) if x.is_floating_point() else x for name, x in inputs(**options).items()}
