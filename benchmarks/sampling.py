"""How close few sampling steps come to many, and what a pass of the wide network costs.

    python -m benchmarks.sampling                                    # trains a small network, then compares: minutes
    python -m benchmarks.sampling --cost infrared.png visible.png    # the default network on a pair of your own

The comparison trains a narrow SGDFuse on synthetic scenes, to predict the noise in pictures fused by the classical
pyramid. Held-out scenes are then sampled by DDIM and DPM-Solver++ with few steps, from the same noise; a row says how
far the result is from that of 1000 steps. The denoised picture is compared, since the head is not trained. The
cost is measured with random weights, which cost what trained ones do.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fusionblocks as fb
from benchmarks import harness
from fusionblocks.models import beta_schedule, make_scheduler, noise_levels

PACKAGES = ("torch", "diffusers")
SIZE, BATCH = 32, 8
NETWORK = {
    "channels": 8,
    "multipliers": (1, 2, 4),
    "layers_per_block": 1,
    "norm_groups": 4,
    "dropout": 0.0,
    "head_channels": 8,
    "enhancement_channels": 4,
    "transformer_channels": 8,
    "transformer_blocks": 1,
}
STEPS = (5, 10, 25, 50, 100, 250)
STRENGTHS = (0.25, 1.0)


def scenes(seeds: range, side: int = SIZE) -> tuple[Tensor, Tensor]:
    """Return fused pictures ``(B, 3, H, W)`` and the masks of what is warm or alive ``(B, 2, H, W)``."""
    found = [fb.data.synthetic_scene(seed, height=side, width=side) for seed in seeds]
    fused = torch.stack([fb.fuse(scene.infrared, scene.visible, model="laplacian") for scene in found])
    masks = torch.stack([(scene.mask > 0).float().expand(2, -1, -1) for scene in found])
    return fused, masks


def train(model: fb.SGDFuse, updates: int) -> float:
    """Train the denoiser, and return the mean error of the last hundred updates."""
    pictures, masks = scenes(range(100, 164))
    levels = noise_levels(beta_schedule("linear", 1000)).float()
    optimizer = torch.optim.AdamW(model.denoiser.parameters())
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=updates)
    errors: list[float] = []
    model.train()
    for _ in range(updates):
        chosen = torch.randint(len(pictures), (BATCH,))
        picture, mask = pictures[chosen], masks[chosen]
        if torch.rand(()) < 0.5:
            picture, mask = picture.flip(-1), mask.flip(-1)
        level = levels[torch.randint(1000, (BATCH,))]
        noise = torch.randn_like(picture)
        x = torch.cat([model.diffuse(picture, level, noise), mask], dim=1)
        error = torch.nn.functional.mse_loss(model.denoiser(x, level), noise)
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        rate.step()
        errors.append(error.item())
    model.eval()
    return sum(errors[-100:]) / len(errors[-100:])


def compare(updates: int, count: int, seed: int = 0) -> list[dict[str, str]]:
    """Return a row for each scheduler, strength and number of steps."""
    torch.manual_seed(seed)
    model = fb.SGDFuse(**NETWORK)
    error = train(model, updates)
    print(f"{updates} updates, noise predicted with a mean squared error of {error:.4f}", flush=True)
    pictures, masks = scenes(range(count))
    pipeline = fb.SGDFusePipeline.from_model(model)
    pipeline.set_progress_bar_config(disable=True)

    def denoised(name: str, steps: int, strength: float) -> tuple[Tensor, float, int]:
        pipeline.scheduler = schedulers()[name]
        walk = {"num_inference_steps": steps, "strength": strength}
        noisy = pipeline.diffuse(pictures, generator=torch.Generator().manual_seed(seed), **walk)
        start = time.perf_counter()
        output = pipeline.denoise(noisy, masks[:, :1], masks[:, 1:], **walk)
        return output.denoised, time.perf_counter() - start, len(pipeline.noise_levels(steps, strength))

    rows = []
    for strength in STRENGTHS:
        of_ddim, _, _ = denoised("ddim", 1000, strength)
        for name in schedulers():
            reference, _, _ = denoised(name, 1000, strength)
            for steps in STEPS:
                result, taken, passes = denoised(name, steps, strength)
                rows.append(
                    {
                        "sampler": name,
                        "strength": str(strength),
                        "steps": str(steps),
                        "passes": str(passes),
                        "psnr_to_own_1000_db": f"{psnr(result, reference):.2f}",
                        "psnr_to_ddim_1000_db": f"{psnr(result, of_ddim):.2f}",
                        "psnr_to_clean_db": f"{psnr(result, pictures):.2f}",
                        "seconds_per_picture": f"{taken / count:.4f}",
                        "pictures": f"{count}x{SIZE}x{SIZE}",
                        "updates": str(updates),
                        "noise_error": f"{error:.4f}",
                        **harness.machine(torch.device("cpu"), PACKAGES),
                    }
                )
                print(", ".join(list(rows[-1].values())[:8]), flush=True)
    return rows


def schedulers() -> dict[str, Any]:
    """Return fresh schedulers by name: DDIM clips every prediction to a picture, DPM-Solver++ where it is told to."""
    multistep = make_scheduler("dpm-solver++")
    clipped = type(multistep).from_config(multistep.config, thresholding=True, sample_max_value=1.0)
    return {"ddim": make_scheduler("ddim"), "dpm-solver++": multistep, "dpm-solver++, clipped": clipped}


def psnr(result: Tensor, reference: Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB, at most 200."""
    return float(-10 * (result - reference).square().mean().clamp(min=1e-20).log10())


def cost(infrared: Path, visible: Path, tile: int | None, steps: int, strength: float) -> dict[str, str]:
    """Return a row with the time and the peak memory of the default network on a pair."""
    torch.manual_seed(0)
    pipeline = fb.SGDFusePipeline.from_model(fb.SGDFuse().eval())
    pipeline.set_progress_bar_config(disable=True)
    thermal = picture_of(infrared)
    thermal = fb.image.luma(thermal) if thermal.shape[1] == 3 else thermal
    colour = picture_of(visible).expand(-1, 3, -1, -1)
    mask = (thermal > thermal.mean()).float()
    walk = {"num_inference_steps": steps, "strength": strength}

    def run() -> None:
        pipeline(thermal, colour, mask, mask, generator=torch.Generator().manual_seed(0), tile=tile, **walk)

    wall, cpu = time.perf_counter(), time.process_time()
    peak = harness.peak_bytes(run, torch.device("cpu"))
    taken, worked = time.perf_counter() - wall, time.process_time() - cpu
    passes = len(pipeline.noise_levels(**walk))
    return {
        "height": str(thermal.shape[-2]),
        "width": str(thermal.shape[-1]),
        "tile": str(tile or ""),
        "passes": str(passes),
        "seconds": f"{taken:.1f}",
        "seconds_per_pass": f"{taken / passes:.2f}",
        "cpu_seconds_per_pass": f"{worked / passes:.2f}",
        "peak_mib": f"{peak / harness.MEBIBYTE:.0f}",
        **harness.machine(torch.device("cpu"), PACKAGES),
    }


def picture_of(file: Path) -> Tensor:
    return fb.image.array_to_tensor(file.stem, fb.image.read_image(file))[None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cost", type=Path, nargs=2, metavar=("INFRARED", "VISIBLE"), help="measure this pair")
    parser.add_argument("--tile", type=int, help="side of the tiles for --cost")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--strength", type=float, default=0.25)
    parser.add_argument("--updates", type=int, default=1500, help="of the small network")
    parser.add_argument("--scenes", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dry-run", action="store_true", help="write no rows")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.cost:
        rows = [cost(*options.cost, options.tile, options.steps, options.strength)]
        print(rows[0])
    else:
        rows = compare(options.updates, options.scenes)
    if not options.dry_run:
        harness.append_rows(harness.RESULTS / ("sampling_cost.csv" if options.cost else "sampling.csv"), rows)


if __name__ == "__main__":
    main()
