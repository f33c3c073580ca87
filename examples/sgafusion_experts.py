"""Train a small SGAFusion with a small CLIP-like guide for two minutes, and draw which expert acted where.

    python examples/sgafusion_experts.py --output outputs/sgafusion.jpg

Both learn from scenes that the library draws and degrades: the guide to name the degradation, the network to fuse a
hazy or dark visible picture as if it were clean. It shows how the parts fit together; two minutes on drawn scenes make
no network for real pictures.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

import fusionblocks as fb
from fusionblocks.data import DegradedPictures, degrade, synthetic_scene
from fusionblocks.guidance import CLIPDegradationClassifier
from fusionblocks.image import gradient_magnitude, luma, tensor_to_array, with_luma
from fusionblocks.training import class_accuracy, train_classifier

CLASSES = ("clean", "haze", "low_light")
SIDE, CROP, BATCH = 64, 48, 4


def train_guide(scenes: list[fb.data.SyntheticScene], steps: int) -> CLIPDegradationClassifier:
    """A random tower that stays frozen; what learns is its low-rank updates and the heads."""
    tower = VisionTransformer(SIDE, 16, width=64, layers=2, heads=4, mlp_ratio=2, output_dim=64)
    guide = CLIPDegradationClassifier(tower=tower, classes=CLASSES, embedding_channels=32, rank=8, lora_targets="all")
    learned, held_out = ([scene.visible for scene in part] for part in (scenes[:-8], scenes[-8:]))
    batches = DataLoader(DegradedPictures(learned, CLASSES, length=32 * steps, size=SIDE), 32)
    train_classifier(guide, batches, steps=steps, lr=3e-3, progress=False)
    accuracy = class_accuracy(guide, DataLoader(DegradedPictures(held_out, CLASSES, size=SIDE, seed=1), 24))
    print("guide, held-out scenes:", ", ".join(f"{name} {share:.0%}" for name, share in accuracy.items()))
    return guide


def batch_of(scenes: list[fb.data.SyntheticScene], generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return infrared pictures, degraded visible pictures, and the colour pictures to be made of both."""
    infrared, visible, wanted = [], [], []
    for _ in range(BATCH):
        scene = scenes[int(torch.randint(len(scenes), (), generator=generator))]
        kind = CLASSES[int(torch.randint(len(CLASSES), (), generator=generator))]
        strength = 0.4 + 0.6 * float(torch.rand((), generator=generator))
        degraded = scene.visible
        if kind != "clean":
            degraded = degrade(degraded, kind, strength=strength, generator=generator)
        top, left = (int(torch.randint(size - CROP + 1, (), generator=generator)) for size in degraded.shape[1:])
        cut = (slice(None), slice(top, top + CROP), slice(left, left + CROP))
        brighter = torch.maximum(scene.infrared[cut], luma(scene.visible[cut]))
        infrared.append(scene.infrared[cut])
        visible.append(degraded[cut])
        wanted.append(with_luma(brighter[None], scene.visible[cut][None])[0])
    return torch.stack(infrared), torch.stack(visible), torch.stack(wanted)


def train_network(model: fb.FusionModel, scenes: list[fb.data.SyntheticScene], steps: int) -> None:
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    for _ in range(steps):
        infrared, visible, wanted = batch_of(scenes, generator)
        fused = model(infrared, visible).fused
        edges = F.l1_loss(gradient_magnitude(luma(fused)), gradient_magnitude(luma(wanted)))
        loss = F.l1_loss(fused, wanted) + 0.5 * edges
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    tenth = max(1, steps // 10)
    print(f"network: loss {sum(losses[:tenth]) / tenth:.3f} to {sum(losses[-tenth:]) / tenth:.3f}")


def rows_of(model: fb.FusionModel, height: int, width: int) -> Tensor:
    """Return a row a degradation: infrared, visible, fused, and the degradation experts over the visible picture."""
    scene = synthetic_scene(seed=10, height=height, width=width, time="dusk")
    rows = []
    for kind in CLASSES:
        visible = scene.visible
        if kind != "clean":
            visible = degrade(visible, kind, strength=0.8, generator=torch.Generator().manual_seed(1))
        report = fb.expert_report(model, scene.infrared, visible)
        experts = report["encoder.degradation"]
        shares = (f"{name} {share:.0%}" for name, share in zip(experts.experts, experts.shares[0].tolist()))
        print(f"{kind}: {', '.join(shares)}")
        # relative: after so short a training the gate hardly moves
        overlay = report.overlay("encoder.degradation", relative=True)[0]
        rows.append(torch.cat([scene.infrared.expand(3, -1, -1), visible, report.fused, overlay], dim=2))
    return torch.cat(rows, dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600, help="of the network's training")
    parser.add_argument("--guide-steps", type=int, default=100)
    parser.add_argument("--scenes", type=int, default=40, help="how many to draw, more than 8")
    parser.add_argument("--query", default="image", help="image (as released) or semantic (as drawn)")
    parser.add_argument("--output", type=Path, default=Path("outputs/sgafusion.jpg"))
    arguments = parser.parse_args()

    torch.manual_seed(0)
    scenes = [
        synthetic_scene(seed, height=120, width=160, time=("night", "dusk")[seed % 2])
        for seed in range(100, 100 + arguments.scenes)
    ]
    guide = train_guide(scenes, arguments.guide_steps)
    model = fb.create_model("sgafusion", guidance=guide, channels=4, semantic_channels=32, query=arguments.query)
    train_network(model, scenes, arguments.steps)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(tensor_to_array(rows_of(model, 144, 192)))
    picture.save(arguments.output, quality=80)  # noise makes large files
    print(arguments.output)


if __name__ == "__main__":
    main()
