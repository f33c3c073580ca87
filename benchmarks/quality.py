"""What the library's own network is worth, and what each term of its loss is worth to it.

    python -m benchmarks.quality split DATA SPLIT       # the pairs to learn from and those to judge by, as links
    python -m benchmarks.quality compare SPLIT          # beside average, maximum and the classical pyramid
    python -m benchmarks.quality ablate SPLIT           # short trainings without a term each, about twenty minutes
    python -m benchmarks.quality published TEST         # the same on test sets, TEST/TNO and TEST/RoadScene
    python -m benchmarks.quality speed                  # seconds a picture on two CPU threads, and what bfloat16 costs
    python -m benchmarks.quality pictures               # fuse from arrays to an array, beside others, up to 4K

``DATA`` holds the folders ``roadscene``, ``msrs``, ``m3fd`` and ``llvip``, each with pairs in ``ir`` and ``vi``. Every
seventh pair of RoadScene by name, beginning with the fourth, and the fourth of the five of each other set are to
judge by; the others are to learn from. Rows go to ``quality.csv``,
``ablation.csv``, ``quality_speed.csv`` and ``end_to_end.csv`` in ``benchmarks/results``.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fusionblocks as fb
from benchmarks import harness
from fusionblocks.data import PairedImages, open_dataset
from fusionblocks.data.pairs import pair_folders
from fusionblocks.image import luma, tensor_to_array
from fusionblocks.metrics import FusionEvaluator
from fusionblocks.training import load_recipe, train

METRICS = ("EN", "SD", "SF", "MI", "SCD", "VIF", "Qabf", "SSIM", "Nabf")
BURNT = "burnt"
"""Per cent of the pixels at 254 or above beyond those of the brighter source."""
CONVENTION = "cddfuse"
PACKAGES = ("torch",)
#: How many pairs there are to one that is judged by, and which of them that is.
SETS = {"roadscene": (7, 3), "msrs": (5, 3), "m3fd": (5, 3), "llvip": (5, 3)}
STEPS = 200

Fuse = Callable[[Tensor, Tensor], Tensor]


def split(data: Path, folder: Path) -> None:
    """Link the pairs of all sets into ``folder/train`` and ``folder/val``."""
    for name, (period, judged) in SETS.items():
        listing = pair_folders(data / name / "ir", data / name / "vi")
        for index, pair in enumerate(sorted(listing.pairs, key=lambda pair: pair.name)):
            part = folder / ("val" if index % period == judged else "train")
            for side, file in (("ir", pair.infrared), ("vi", pair.visible)):
                link = part / side / f"{name}_{pair.name}{file.suffix}"
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file.resolve())


def luma_of(model: torch.nn.Module) -> Fuse:
    """Return a network as a function from an infrared picture and a visible luma to the fused luma."""
    return lambda infrared, visible: model(infrared, visible).fused


def methods() -> dict[str, Fuse]:
    """Return what is compared: functions of an infrared picture and a visible luma."""
    return {
        "average": lambda infrared, visible: (infrared + visible) / 2,
        "maximum": torch.maximum,
        "laplacian": luma_of(fb.create_model("laplacian")),
        "fusionblocks": luma_of(fb.create_model("fusionblocks")),
        "fusionblocks, natural": luma_of(fb.create_model("fusionblocks", style="natural")),
    }


@torch.no_grad()
def judge(fuse: Fuse, pairs: PairedImages, name: str | None = None) -> dict[str, dict[str, float]]:
    """Return the means of the metrics over a set, or over RoadScene's pairs and over those of the other sets."""
    evaluators: dict[str, FusionEvaluator] = {}
    burnt: dict[str, list[float]] = {}
    for index in range(len(pairs)):
        item = pairs[index]
        infrared, visible = ((255 * x).round() for x in (item["infrared"][None], luma(item["visible"][None])))
        fused = (255 * fuse(infrared / 255, visible / 255).clamp(0, 1)).round()
        chosen = name or ("roadscene" if item["name"].startswith("roadscene") else "msrs, m3fd, llvip")
        evaluator = evaluators.setdefault(chosen, FusionEvaluator(metrics=METRICS, convention=CONVENTION))
        evaluator.update(*(x.to(torch.uint8) for x in (fused, infrared, visible)), names=[item["name"]])
        white = [float((x >= 254).float().mean()) for x in (fused, torch.maximum(infrared, visible))]
        burnt.setdefault(chosen, []).append(100 * (white[0] - white[1]))
    return {
        f"{chosen} ({len(evaluator)} pairs)": {
            **{metric: float(mean) for metric, mean in evaluator.compute().mean.items()},
            BURNT: sum(burnt[chosen]) / len(burnt[chosen]),
        }
        for chosen, evaluator in sorted(evaluators.items(), reverse=True)
    }


def ablations(recipe: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the changes of each variant of the recipe: all terms, and each left out in turn."""
    phase, *later = recipe["phases"]
    place, losses, options = f"phases.{phase['name']}", phase["losses"], phase["loss_options"]

    def without(term: str) -> dict[str, Any]:
        return {
            f"{place}.losses": {name: weight for name, weight in losses.items() if name != term},
            f"{place}.loss_options": {name: values for name, values in options.items() if name != term},
        }

    # what finishes the training is left out, as far as a recipe can
    short = {f"{place}.steps": STEPS, **{f"phases.{other['name']}.steps": 1 for other in later}}
    return {"all terms": short, **{f"without {term}": {**short, **without(term)} for term in losses}}


def rows_of(variant: str, scores: Mapping[str, Mapping[str, float]]) -> list[dict[str, str]]:
    """Return a row of the table for each set, and print it."""
    rows = []
    for name, means in scores.items():
        numbers = {metric: f"{mean:.3f}" for metric, mean in means.items()}
        print(f"{variant:28} {name:28} " + "  ".join(f"{metric} {value:>6}" for metric, value in numbers.items()))
        rows.append({"variant": variant, "set": name, **numbers, "convention": CONVENTION})
    return rows


@torch.inference_mode()
def speeds() -> list[dict[str, str]]:
    """Return a row for each way to run the network on one scene of 480x640, timed in turn."""
    torch.set_num_threads(2)
    scene = fb.data.synthetic_scene(10)
    pair = scene.infrared[None], scene.visible[None]
    model = fb.create_model("fusionblocks")
    variants = {
        "as it is": model,
        "optimized": fb.optimize(model),
        "optimized, bfloat16": fb.optimize(model, torch.bfloat16),
    }
    calls = [lambda network=network: network(*pair) for network in variants.values()]
    harness.paired_seconds(calls, torch.device("cpu"), 2)
    rounds = harness.paired_seconds(calls, torch.device("cpu"), 15)
    exact = model(*pair).fused
    rows = []
    for (name, network), times in zip(variants.items(), zip(*rounds)):
        error = (network(*pair).fused - exact).square().mean()
        seconds = harness.percentiles([time.wall for time in times])
        rows.append(
            {
                "variant": name,
                "set": "a scene of 480x640",
                **{f"{key}_s": f"{value:.3f}" for key, value in seconds.items()},
                "psnr_db": f"{-10 * error.log10():.1f}" if error > 0 else "",
            }
        )
        print("  ".join(f"{key} {value}" for key, value in rows[-1].items()))
    return rows


class OfLuma(torch.nn.Module):
    """What fuses an infrared picture and a visible luma, as a network that takes colour."""

    def __init__(self, fuse: Fuse) -> None:
        super().__init__()
        self.fuse = fuse

    def forward(self, infrared: Tensor, visible: Tensor) -> Tensor:
        return self.fuse(infrared, luma(visible))


PEERS = {"sgafusion": {"semantic": torch.zeros(512)}, "psfusion": {}, "smfnet": {}}
SIZES = ((480, 640), (1080, 1920), (2160, 3840))


def end_to_end() -> list[dict[str, str]]:
    """Return a row for each way to fuse a pair of 8-bit arrays into one, everything included, timed in turn."""
    torch.set_num_threads(2)
    scene = fb.data.synthetic_scene(10)
    rows = []
    for height, width in SIZES:
        larger = [
            torch.nn.functional.interpolate(x[None], (height, width), mode="bilinear")[0]
            for x in (scene.infrared, scene.visible)
        ]
        pair = [tensor_to_array(x) for x in larger]
        models: dict[str, tuple[Any, dict[str, Any]]] = {
            "fusionblocks": (None, {}),
            "maximum": (OfLuma(torch.maximum), {}),
            "laplacian": (fb.create_model("laplacian"), {}),
        }
        if height == SIZES[0][0]:
            models |= {name: (fb.optimize(fb.create_model(name)), more) for name, more in PEERS.items()}
        calls = [functools.partial(fb.fuse, *pair, model=model, **more) for model, more in models.values()]
        harness.paired_seconds(calls, torch.device("cpu"), 1)
        rounds = harness.paired_seconds(calls, torch.device("cpu"), 3)
        for name, times in zip(models, zip(*rounds)):
            ratio = harness.median_ratio([(time.wall, first.wall) for time, (first, *_) in zip(times, rounds)])
            seconds = harness.percentiles([time.wall for time in times])
            rows.append(
                {
                    "variant": name,
                    "set": f"{height}x{width}",
                    **{f"{key}_s": f"{value:.3f}" for key, value in seconds.items()},
                    "times_fusionblocks": f"{ratio:.2f}",
                }
            )
            print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    return rows


def append(name: str, rows: list[dict[str, str]]) -> None:
    machine = harness.machine(torch.device("cpu"), PACKAGES)
    harness.append_rows(harness.RESULTS / f"{name}.csv", [{**row, **machine} for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("split")
    command.add_argument("data", type=Path)
    command.add_argument("folder", type=Path)
    for name in ("compare", "ablate", "published"):
        commands.add_parser(name).add_argument("folder", type=Path)
    commands.add_parser("speed")
    commands.add_parser("pictures")
    commands.choices["ablate"].add_argument("--only", nargs="*", help="variants to train, by the ends of their names")
    arguments = parser.parse_args()
    if arguments.command == "split":
        split(arguments.data, arguments.folder)
        return
    if arguments.command == "speed":
        append("quality_speed", speeds())
        return
    if arguments.command == "pictures":
        append("end_to_end", end_to_end())
        return
    if arguments.command == "published":
        for place in sorted(path for path in arguments.folder.iterdir() if (path / "ir").is_dir()):
            pairs = PairedImages(place / "ir", place / "vi")
            rows = [row for name, fuse in methods().items() for row in rows_of(name, judge(fuse, pairs, place.name))]
            append("quality", rows)
        return
    judged = open_dataset(arguments.folder, "val")
    if arguments.command == "compare":
        append("quality", [row for name, fuse in methods().items() for row in rows_of(name, judge(fuse, judged))])
        return
    pairs = open_dataset(arguments.folder, "train", cache=True)
    for name, changes in ablations(load_recipe("fusionblocks").plain()).items():
        if arguments.only and not name.endswith(tuple(arguments.only)):
            continue
        with tempfile.TemporaryDirectory() as output:
            model = train(load_recipe("fusionblocks", changes), pairs, output=output, device="cpu", progress=False)
        append("ablation", rows_of(name, judge(luma_of(model), judged)))


if __name__ == "__main__":
    main()
