"""Time and memory of guided fusion: CLIP before SGAFusion, SAM before SGDFuse, each guide alone and the whole call.

    python -m benchmarks.guidance                                     # a synthetic pair, 320x240, on two CPU threads
    python -m benchmarks.guidance --pair thermal.png street.png       # a pair of your own, at its size
    python -m benchmarks.guidance clip sgafusion --size 640x480       # by name

All weights are random, which costs what trained ones do, but for SAM's masks: from random weights they are as many as
there are prompts and none is filtered, so their number is that of the grid. The grid is kept small, and so are the
steps of the diffusion; a row says how small. Each row comes from processes of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

import fusionblocks as fb
from benchmarks import harness
from benchmarks.measuring import RETURNING

Pair = tuple[Tensor, Tensor]
PACKAGES = ("torch", "open_clip_torch", "segment-anything", "diffusers")
POINTS_PER_SIDE = 4
STEPS, STRENGTH = 4, 0.5
SMALL = 64  # side of the pictures that load the libraries before the memory is measured


@dataclass(frozen=True)
class Case:
    """One row of the table: what runs, on which pair."""

    part: str
    height: int
    width: int
    files: tuple[str, str] | None = None
    device: str = "cpu"
    threads: int = 2
    repeats: int = 3


def clip() -> nn.Module:
    from fusionblocks.guidance import CLIPDegradationClassifier

    return CLIPDegradationClassifier(pretrained=None)


def sam() -> nn.Module:
    from segment_anything import sam_model_registry

    from fusionblocks.guidance import SAMMasks

    # thresholds that random weights pass
    return SAMMasks(
        sam_model_registry["vit_b"](),
        points_per_side=POINTS_PER_SIDE,
        pred_iou_thresh=-1e9,
        stability_score_thresh=-1.0,
    )


def sgafusion() -> fb.FusionModel:
    return fb.create_model("sgafusion", guidance=clip())


def sgdfuse() -> fb.FusionModel:
    return fb.create_model("sgdfuse", guidance=sam(), num_inference_steps=STEPS, strength=STRENGTH)


@dataclass(frozen=True)
class Part:
    """How a part is built and called, and what its row says about it."""

    build: Callable[[], Any]
    call: Callable[[Any, Tensor, Tensor], object]
    settings: str


def fused(model: Any, infrared: Tensor, visible: Tensor) -> object:
    return fb.fuse(infrared, visible, model=model)


GRID = f"vit_b, {POINTS_PER_SIDE}x{POINTS_PER_SIDE} points, both pictures"
PARTS = {
    "clip": Part(clip, lambda guide, infrared, visible: guide(visible), "ViT-B-32-quickgelu"),
    "sgafusion": Part(sgafusion, fused, "guided by ViT-B-32-quickgelu"),
    "sam": Part(sam, lambda guide, infrared, visible: guide(infrared, visible), GRID),
    "sgdfuse": Part(sgdfuse, fused, f"guided by {GRID}; {round(STEPS * STRENGTH)} passes of the U-Net"),
}


def pictures(case: Case) -> Pair:
    """Return the pair ``(1, 1, H, W)`` and ``(1, 3, H, W)`` that a case is measured on."""
    if case.files is None:
        scene = fb.data.synthetic_scene(10, height=case.height, width=case.width)
        return scene.infrared[None], scene.visible[None]
    thermal, colour = map(fb.image.read_image, case.files)
    infrared = fb.image.array_to_tensor("infrared", thermal, thermal=True)[None]
    visible = fb.image.array_to_tensor("visible", colour)[None]
    return fb.image.luma(infrared) if infrared.shape[1] == 3 else infrared, visible.expand(-1, 3, -1, -1)


def prepared(case: Case) -> tuple[Callable[[Tensor, Tensor], object], Pair, float]:
    """Return a call, its pictures and the size of its weights in bytes."""
    torch.set_num_threads(case.threads)
    torch.manual_seed(0)
    device = torch.device(case.device)
    part = PARTS[case.part]
    module = part.build().to(device).eval()
    modules = [module, *getattr(module, "_guide", ())]
    for guide in modules[1:]:
        guide.to(device)
    weights = sum(value.numel() * value.element_size() for each in modules for value in each.parameters())
    infrared, visible = (picture.to(device) for picture in pictures(case))

    @torch.no_grad()
    def call(infrared: Tensor, visible: Tensor) -> object:
        return part.call(module, infrared, visible)

    return call, (infrared, visible), weights


def measure_times(case: Case) -> tuple[list[harness.Seconds], float, dict[str, str]]:
    call, pair, weights = prepared(case)
    call(*(picture[..., :SMALL, :SMALL] for picture in pair))  # warms up
    device = torch.device(case.device)
    samples = [harness.seconds(lambda: call(*pair), device) for _ in range(case.repeats)]
    return samples, weights, harness.machine(device, PACKAGES)


def measure_memory(case: Case) -> int:
    """Return the peak bytes of a call beyond weights and pictures, in a process that has done nothing else."""
    call, pair, _ = prepared(case)
    call(*(picture[..., :SMALL, :SMALL] for picture in pair))
    return harness.peak_bytes(lambda: call(*pair), torch.device(case.device))


def measure(case: Case) -> dict[str, str]:
    """Return a case's row, times and memory each from a fresh process."""
    context = multiprocessing.get_context("spawn")

    def apart(function: Callable[[Case], Any], environment: dict[str, str]) -> Any:
        with mock.patch.dict(os.environ, environment), context.Pool(1) as pool:
            return pool.apply(function, (case,))

    samples, weights, machine = apart(measure_times, {})
    peak = apart(measure_memory, RETURNING)
    return {
        "name": case.part,
        "settings": PARTS[case.part].settings,
        "picture": "synthetic" if case.files is None else "a pair of one's own",
        "place": case.device,
        "height": str(case.height),
        "width": str(case.width),
        **{f"{key}_s": f"{value:.3f}" for key, value in harness.percentiles([s.wall for s in samples]).items()},
        "cpu_p50_s": f"{harness.percentiles([s.cpu for s in samples])['p50']:.3f}",
        "peak_mib": f"{peak / harness.MEBIBYTE:.0f}",
        "weights_mib": f"{weights / harness.MEBIBYTE:.0f}",
        "repeats": str(case.repeats),
        **machine,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guidance", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"{', '.join(PARTS)} [all]")
    parser.add_argument("--size", default="320x240", help="width x height of the synthetic pair [320x240]")
    parser.add_argument("--pair", nargs=2, metavar=("INFRARED", "VISIBLE"), help="two files, instead")
    parser.add_argument("--device", default="cpu", help="cpu, cuda [cpu]")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads [2]")
    parser.add_argument("--repeats", type=int, default=3, help="timed calls of a case [3]")
    parser.add_argument("--output", type=Path, default=harness.RESULTS / "guidance.csv", help="table to append to")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(PARTS)
    if unknown:
        parser.error(f"unknown {', '.join(sorted(unknown))}; known: {', '.join(PARTS)}")
    width, height = map(int, options.size.split("x"))
    files = None if options.pair is None else tuple(options.pair)
    if files is not None:
        height, width = fb.image.read_image(files[1]).shape[:2]
    for name in options.names or PARTS:
        row = measure(Case(name, height, width, files, options.device, options.threads, options.repeats))
        harness.append_rows(options.output, [row])
        print(
            f"{name:<9} {width}x{height}  p20 {row['p20_s']} p50 {row['p50_s']} p80 {row['p80_s']} s "
            f"({row['cpu_p50_s']} s of the cores), peak {row['peak_mib']} MiB, weights {row['weights_mib']} MiB",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
