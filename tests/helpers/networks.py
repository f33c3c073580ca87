"""Narrow networks whose norms know the statistics of a scene, and pairs to feed them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import fusionblocks as fb

NARROW: dict[str, dict[str, Any]] = {
    "fusionblocks": {"channels": 8},
    "laplacian": {},
    "psfusion": {"backbone": "resnet18", "backbone_channels": (8, 8, 8, 8), "semantic_channels": 8},
    "sgafusion": {"channels": 4, "semantic_channels": 8},
    "smfnet": {"channels": 16, "num_heads": 4, "base_layers": 1, "base_depth": 1, "dilations": (1, 2, 4)},
}


def pair(name: str, height: int, width: int, *, batch: int = 1, seed: int = 3, semantic: int = 8) -> dict[str, Tensor]:
    """Return scenes as the network ``name`` takes them."""
    scenes = [fb.data.synthetic_scene(seed + i, height=height, width=width) for i in range(batch)]
    inputs = {
        "infrared": torch.stack([scene.infrared for scene in scenes]),
        "visible": torch.stack([scene.visible for scene in scenes]),
    }
    if name == "sgafusion":
        inputs["semantic"] = torch.randn(batch, semantic, generator=torch.Generator().manual_seed(0))
    return inputs


def trained_like(name: str, **options: Any) -> fb.FusionModel:
    """Return a network with biases and gains other than zero, and norms that hold the statistics of scenes."""
    torch.manual_seed(0)
    model = fb.create_model(name, **options)
    for parameter in model.parameters():
        if parameter.ndim <= 1 or not parameter.any():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    if norms:
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            model.train()(**pair(name, 96, 96, batch=2, semantic=options.get("semantic_channels", 512)))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            # a dead channel of random weights is not blown up: rounding errors stay what they are in a trained network
            norm.running_var.clamp_(min=0.05)
    return model.eval()
