"""Four labelled scenes with all that the papers' recipes ask of a pair, and the recipes made small."""

from __future__ import annotations

from typing import Any

import torch

from fusionblocks.data import CLASS_NAMES, boundary_mask, synthetic_scene
from fusionblocks.training import Recipe, load_recipe

PERSON = CLASS_NAMES.index("person")
CLASSES = 9

# fields of the configuration, and steps and highest rate of each phase
SMALL: dict[str, tuple[dict[str, Any], dict[str, tuple[int, float]]]] = {
    "fusionblocks": (
        {"channels": 8},
        {"fusion": (30, 1e-3), "edges": (30, 6e-4)}
        | dict.fromkeys(("lift", "likeness", "contrast", "settle"), (6, 6e-4)),
    ),
    "fusionblocks_natural": ({"channels": 8}, {"fusion": (30, 1e-3), "finish": (30, 6e-4), "settle": (6, 6e-4)}),
    "smfnet": (
        {"channels": 16, "num_heads": 4, "base_layers": 1, "base_depth": 1, "dilations": [1, 2, 4]},
        {"reconstruction": (12, 4e-3), "fusion": (12, 4e-3)},
    ),
    "psfusion": (
        {"backbone": "resnet18", "backbone_channels": [8, 8, 16, 16], "semantic_channels": 8, "scene_channels": 8},
        {"multi_task": (15, 4e-3)},
    ),
    "sgafusion": ({"channels": 4, "semantic_channels": 8}, {"supervised": (20, 5e-3), "degraded": (10, 2e-3)}),
    "sgdfuse": (
        {
            "channels": 8,
            "norm_groups": 4,
            "head_channels": 8,
            "enhancement_channels": 8,
            "transformer_channels": 8,
            "transformer_blocks": 1,
            "num_heads": 2,
            "num_inference_steps": 4,
        },
        {"preliminary": (15, 1e-2), "diffusion": (25, 4e-3), "head": (15, 1e-2)},
    ),
}


# a high rate to the end, but for networks whose last steps then leap about
CONSTANT: dict[str, Any] = {"name": "constant"}
SCHEDULES: dict[str, dict[str, Any]] = dict.fromkeys(
    ("fusionblocks", "fusionblocks_natural"), {"name": "cosine", "warmup": 3, "floor": 1e-5}
)


def scenes(number: int = 4, size: int = 64) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    items = []
    for seed in range(number):
        scene = synthetic_scene(seed, height=size, width=size)
        labels = scene.mask.clamp(max=CLASSES - 1)
        person = (scene.mask == PERSON)[None].float()
        items.append(
            {
                "infrared": scene.infrared,
                "visible": scene.visible,
                "name": str(seed),
                "labels": labels,
                "binary": (labels > 0)[None].float(),
                "boundary": boundary_mask(labels)[None].float(),
                "salient": person,
                "semantic": torch.randn(8, generator=generator),
                "infrared_mask": person,
                "visible_mask": labels[None].float() / (CLASSES - 1),
            }
        )
    return items


def small_recipe(name: str, **changes: Any) -> Recipe:
    """Return a recipe of the library, narrow, with few steps of a higher rate and patches of 32 pixels at most."""
    config, phases = SMALL[name]
    made: dict[str, Any] = {"config": config}
    for phase, (steps, lr) in phases.items():
        made |= {
            f"phases.{phase}.{key}": value
            for key, value in {
                "epochs": None,
                "steps": steps,
                "batch": 4,
                "accumulate": 1,
                "patch": None,
                "optimizer.lr": lr,
                "optimizer.rates": {},
                "schedule": SCHEDULES.get(name, CONSTANT),
                "ema": None,
            }.items()
        }
    return load_recipe(name, made | changes)
