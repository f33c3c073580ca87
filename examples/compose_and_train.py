"""Compose a network from three blocks, train it on the sample scenes, and look at a pair before and after.

    python examples/compose_and_train.py --output compose_and_train

It takes about two minutes on a CPU. The folder then holds ``before_and_after.png`` (infrared, visible, fused by the
untrained and by the trained network), the log, the checkpoints and the weights.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fusionblocks import CAI, FusionModel, FusionOutput, GradientResidualDense, TransformerBlock, fuse
from fusionblocks.data import synthetic_scene
from fusionblocks.image import luma, tensor_to_array, write_image
from fusionblocks.training import read_log, train

RECIPE = {
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
            # as bright as the brighter source, with the stronger edge of both
            "losses": {"intensity_max": 1.0, "joint_gradient": 2.0, "source_ssim": 0.5},
        }
    },
}
HELD_OUT = 10


@dataclass(frozen=True)
class ThreeBlocksConfig:
    channels: int = 16


class ThreeBlocks(FusionModel):
    """Edges by a gradient block, details by an invertible one, structure by a transformer."""

    name, config_class = "three-blocks", ThreeBlocksConfig

    def __init__(self, config: ThreeBlocksConfig | None = None, **options: int) -> None:
        super().__init__(config, **options)
        channels = self.config.channels
        self.embed = nn.Conv2d(2, channels, 3, padding=1)
        self.detail = nn.Sequential(GradientResidualDense(channels), CAI(channels, num_heads=4))
        self.base = TransformerBlock(channels, num_heads=4)
        self.head = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, infrared: Tensor, visible: Tensor) -> FusionOutput:
        features = self.embed(torch.cat([infrared, luma(visible)], dim=1))
        return FusionOutput(fused=torch.sigmoid(self.head(self.detail(features) + self.base(features))))


def show(model: FusionModel, scene: dict[str, Tensor]) -> Tensor:
    """Return the pair in colour as the network fuses it."""
    with torch.no_grad():
        return fuse(scene["infrared"], scene["visible"], model=model.eval())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("compose_and_train"))
    parser.add_argument("--steps", type=int, default=RECIPE["phases"]["fusion"]["steps"])
    arguments = parser.parse_args()
    RECIPE["phases"]["fusion"]["steps"] = arguments.steps

    scenes = [synthetic_scene(seed, height=120, width=160)._asdict() for seed in range(8)]
    unseen = synthetic_scene(HELD_OUT, height=240, width=320)._asdict()
    torch.manual_seed(0)
    model = ThreeBlocks()
    before = show(model, unseen)
    train(RECIPE, scenes, output=arguments.output, model=model, device="cpu")

    row = [unseen["infrared"].expand(3, -1, -1), unseen["visible"], before, show(model, unseen)]
    write_image(arguments.output / "before_and_after.png", tensor_to_array(torch.cat(row, dim=2)))
    losses = [line["loss"] for line in read_log(arguments.output)]
    print(f"loss {losses[0]:.4f} at the first step, {losses[-1]:.4f} at the last")
    print(f"picture: {arguments.output / 'before_and_after.png'}")


if __name__ == "__main__":
    main()
