"""Compose a fusion network from three blocks and fit it to the sample scene for a few steps.

    python examples/compose_network.py --steps 30 --output outputs/compose.png

It shows how blocks, pictures and ``fuse`` fit together; thirty steps on one scene train no useful network.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fusionblocks as fb
from fusionblocks import CAI, GradientResidualDense, TransformerBlock
from fusionblocks.image import gradient_magnitude, luma, write_image


@dataclass(frozen=True)
class TinyFusionConfig:
    """The width of the features."""

    channels: int = 16


class TinyFusion(fb.FusionModel):
    """Detail by a gradient branch and an invertible block, base by a transformer block."""

    name = "tinyfusion"
    config_class = TinyFusionConfig

    def __init__(self, config: TinyFusionConfig | None = None, **options: int) -> None:
        super().__init__(config, **options)
        channels = self.config.channels
        self.embed = nn.Conv2d(1, channels, 3, padding=1)
        self.detail = nn.Sequential(GradientResidualDense(channels), CAI(channels))
        self.base = TransformerBlock(channels, num_heads=4)
        self.head = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, infrared: Tensor, visible: Tensor) -> fb.FusionOutput:
        features = self.embed(infrared) + self.embed(luma(visible))
        return fb.FusionOutput(fused=torch.sigmoid(self.head(self.detail(features) + self.base(features))))


def loss(fused: Tensor, infrared: Tensor, visible: Tensor) -> Tensor:
    """Ask for the brighter source's intensity and the stronger source's gradient."""
    brighter = torch.maximum(infrared, visible)
    stronger = torch.maximum(gradient_magnitude(infrared), gradient_magnitude(visible))
    return F.l1_loss(fused, brighter) + F.l1_loss(gradient_magnitude(fused), stronger)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--output", type=Path, default=Path("outputs/compose.png"))
    arguments = parser.parse_args()

    torch.manual_seed(0)
    scene = fb.data.synthetic_scene(seed=3, height=120, width=160)
    infrared, visible = scene.infrared[None], scene.visible[None]
    model = TinyFusion()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(arguments.steps):
        value = loss(model(infrared=infrared, visible=visible).fused, infrared, luma(visible))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if step in (0, arguments.steps - 1):
            print(f"step {step + 1}: loss {value.item():.3f}")

    fused = fb.fuse(scene.infrared, scene.visible, model=model)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    write_image(arguments.output, (fused * 255).round().byte().permute(1, 2, 0).numpy())
    print(arguments.output)


if __name__ == "__main__":
    main()
