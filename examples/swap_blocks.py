"""Which merge of the shallow features serves PSFusion? Exchange it, train each network alike, and compare the scores.

    python examples/swap_blocks.py --output swap_blocks

A small PSFusion as published, and three with another merge in place of its three SDFM: two blocks of the library, and
the mean of both maps, written here. Each is trained on the same sample scenes for the same steps, which takes about a
minute on a CPU, and scored on scenes that none has seen. The folder then holds the scores and a sheet of pictures.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import fusionblocks as fb
from fusionblocks.data import synthetic_scene
from fusionblocks.image import luma, tensor_to_array, write_image
from fusionblocks.training import train

RECIPE: dict[str, Any] = {
    "seed": 1,
    "phases": {
        "fusion": {
            "objective": "fusion",
            "steps": 150,
            "batch": 4,
            "patch": 64,
            "augment": ["flip", "rotate"],
            "optimizer": {"name": "adam", "lr": 3e-3},
            "schedule": {"name": "cosine", "warmup": 10},
            "clip": 1.0,
            "losses": {"intensity_max": 1.0, "joint_gradient": 2.0, "source_ssim": 0.5},
        }
    },
}
SMALL = {"backbone": "resnet18", "backbone_channels": (16, 16, 16, 16), "semantic_channels": 16, "scene_channels": 16}
METRICS = ("EN", "SF", "VIF", "Qabf", "SSIM")


class MeanMerge(nn.Module):
    """The mean of both maps, and a convolution."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1)

    def forward(self, infrared: Tensor, visible: Tensor) -> Tensor:
        return self.conv((infrared + visible) / 2)


MERGES: dict[str, Callable[[fb.SDFM], nn.Module]] = {
    "AdaptiveFusion": lambda old: fb.create_block("AdaptiveFusion", old.in_channels, old.channels),
    "PSFM": lambda old: fb.PSFM(old.in_channels, old.channels),
    "MeanMerge": lambda old: MeanMerge(old.in_channels, old.channels),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("swap_blocks"))
    parser.add_argument("--steps", type=int, default=RECIPE["phases"]["fusion"]["steps"])
    arguments = parser.parse_args()
    RECIPE["phases"]["fusion"]["steps"] = arguments.steps

    scenes = [synthetic_scene(seed, height=120, width=160)._asdict() for seed in range(8)]
    unseen = [synthetic_scene(seed, height=120, width=160) for seed in range(100, 104)]
    infrared = torch.stack([scene.infrared for scene in unseen])
    visible = torch.stack([scene.visible for scene in unseen])

    torch.manual_seed(0)
    published = fb.create_model("psfusion", **SMALL)
    networks = {"SDFM": published, **{name: fb.swap(published, fb.SDFM, new) for name, new in MERGES.items()}}
    lines, pictures = [f"| merge | parameters | {' | '.join(METRICS)} |", "| --- " * (2 + len(METRICS)) + "|"], []
    for name, network in networks.items():
        train(RECIPE, scenes, output=arguments.output / name, model=network, device="cpu")
        fused = fb.fuse(infrared, visible, model=network.eval())
        scores = fb.metrics.evaluate(luma(fused), infrared, luma(visible), metrics=METRICS)
        cells = [f"{scores[metric].mean():.3f}" for metric in METRICS]
        parameters = sum(parameter.numel() for parameter in network.parameters())
        lines.append(f"| {name} | {parameters / 1e3:.0f} k | {' | '.join(cells)} |")
        pictures.append(torch.cat(list(fused), dim=2))
    table = "\n".join(lines)
    print(table)
    (arguments.output / "scores.md").write_text(f"{table}\n")
    sources = [torch.cat(list(infrared.expand(-1, 3, -1, -1)), dim=2), torch.cat(list(visible), dim=2)]
    write_image(arguments.output / "sheet.png", tensor_to_array(torch.cat([*sources, *pictures], dim=1)))


if __name__ == "__main__":
    main()
