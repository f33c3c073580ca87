"""Pairs per second of training, against the loop of the published scripts, and the share of time that waits for data.

    python -m benchmarks.training               # narrow networks, so that the loop and not the network is measured
    python -m benchmarks.training --full-width  # the recipes' own networks, patches and batches
    python -m benchmarks.training --compile     # compiled by torch.compile too: minutes more
    python -m benchmarks.training --memory      # what a step of each recipe needs at full width: minutes, up to 16 GB

Both sides train the same network on the same files with the same losses at the same batch, in one process. The
published side does what the papers' scripts do: its network is in the published formulation and in float32, it decodes
every file of an item each time, augments whole pictures before it crops, maps labels pixel by pixel in Python
(SGAFusion), and asks for the value of each term in each step. Ours includes decoding, checkpoints and log; compiled, it
is the steps behind the first two alone. With ``--clock cpu`` processor time counts, which a busy machine disturbs less.
Rows go to ``benchmarks/results/training.csv`` and ``training_memory.csv``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks import harness
from benchmarks.published_networks import publish
from fusionblocks import create_model
from fusionblocks.data import CLASS_NAMES, boundary_mask, open_dataset, synthetic_scene
from fusionblocks.image import tensor_to_array, write_image
from fusionblocks.training import list_recipes, load_recipe, read_log, train
from fusionblocks.training.learning import build_optimizer
from fusionblocks.training.objectives import build_objective, objective_class

CLASSES = 9
Clock = Callable[[], float]
NARROW: dict[str, dict[str, Any]] = {
    "psfusion": {
        "backbone": "resnet18",
        "backbone_channels": [8, 8, 16, 16],
        "semantic_channels": 8,
        "scene_channels": 8,
    },
    "sgafusion": {"channels": 4, "semantic_channels": 8},
}
PACKAGES = ("torch", "accelerate")
VARIANTS = ({"precision": "no"}, {"precision": "bf16"})  # of ``train``; the published loops have float32 alone
COMPILED = {"precision": "no", "compile": True}
WARM_UP = 2  # steps in which a network is compiled
PATCH = 64
BATCH = 4


def write_scenes(root: Path, number: int, height: int, width: int) -> None:
    """Write labelled scenes as PSFusion's edition of MSRS has them."""
    for folder in ("ir", "vi", "label", "bi", "bd", "mask"):
        (root / "train" / folder).mkdir(parents=True)
    for seed in range(number):
        scene = synthetic_scene(seed, height=height, width=width)
        labels = scene.mask.clamp(max=CLASSES - 1)
        person = scene.mask == CLASS_NAMES.index("person")
        pictures = {
            "ir": tensor_to_array(scene.infrared),
            "vi": tensor_to_array(scene.visible),
            "label": labels.byte().numpy(),
            "bi": (labels > 0).byte().numpy() * 255,
            "bd": boundary_mask(labels).byte().numpy() * 255,
            "mask": person.byte().numpy() * 255,
        }
        for folder, picture in pictures.items():
            write_image(root / "train" / folder / f"{seed}.png", picture)


def to_tensor(image: Image.Image) -> Tensor:
    """Return a picture as the scripts' ``ToTensor`` does."""
    array = np.array(image)
    array = array[:, :, None] if array.ndim == 2 else array
    return torch.from_numpy(array).permute(2, 0, 1).contiguous().float().div(255)


class PublishedMultiTask(Dataset[dict[str, Any]]):
    """PSFusion's items: six files, augmented whole, then cropped."""

    def __init__(self, root: Path, patch: int) -> None:
        self.root, self.patch = root / "train", patch
        self.names = sorted(file.name for file in (self.root / "ir").iterdir())

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        kinds = {"vi": "RGB", "ir": "L", "label": None, "bi": None, "bd": None, "mask": "L"}
        parts = []
        for folder, mode in kinds.items():
            image = Image.open(self.root / folder / self.names[index])
            picture = to_tensor(image.convert(mode) if mode else image)
            parts.append(picture if mode else picture * 255)
        whole = torch.cat(parts)
        side = int(np.random.randint(3))
        whole = whole.flip(-2 if side == 0 else -1) if side < 2 else whole
        turns = int(np.random.randint(4))
        whole = torch.rot90(whole, turns, (-2, -1)).contiguous() if turns else whole
        top, left = (int(np.random.randint(size - self.patch + 1)) for size in whole.shape[-2:])
        patch = whole[:, top : top + self.patch, left : left + self.patch]
        visible, infrared, labels, binary, boundary, salient = patch.split([3, 1, 1, 1, 1, 1])
        return {
            "infrared": infrared,
            "visible": visible,
            "labels": labels[0].long(),
            "binary": (binary / 255).long(),
            "boundary": (boundary / 255).long(),
            "salient": salient,
        }


class PublishedSegmentation(Dataset[dict[str, Any]]):
    """SGAFusion's items: whole pictures, the classes of the labels looked up pixel by pixel."""

    def __init__(self, root: Path, _: None) -> None:
        self.root = root / "train"
        self.names = sorted(file.name for file in (self.root / "ir").iterdir())
        found: set[int] = set()
        for name in self.names:
            found |= set(np.unique(np.array(Image.open(self.root / "label" / name))).tolist())
        self.classes = found | set(range(CLASSES))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name = self.names[index]
        visible = Image.open(self.root / "vi" / name)
        small = visible.resize((224, 224))  # for CLIP
        clean = Image.open(self.root / "vi" / name)
        infrared = Image.open(self.root / "ir" / name)
        labels = np.array(Image.open(self.root / "label" / name))
        mapped = np.zeros(labels.shape, np.uint8)
        for row in range(labels.shape[0]):
            for column in range(labels.shape[1]):
                value = labels[row, column]
                if value in self.classes:
                    mapped[row, column] = list(self.classes).index(value)
        pictures = [to_tensor(picture) for picture in (visible, infrared, clean, small)]
        return {"visible": pictures[0], "infrared": pictures[1], "labels": torch.tensor(mapped, dtype=torch.long)}


PUBLISHED: dict[str, Callable[[Path, Any], Dataset[dict[str, Any]]]] = {
    "psfusion": PublishedMultiTask,
    "sgafusion": PublishedSegmentation,
}


def recipe_of(name: str, steps: int, *, full_width: bool = False) -> Any:
    """Return the first phase of a recipe with so many steps, by default of a narrow network and few pixels."""
    phase = load_recipe(name).phases[0].name
    changes: dict[str, Any] = {f"phases.{phase}.epochs": None, f"phases.{phase}.steps": steps}
    if not full_width:
        changes |= {"config": NARROW[name], f"phases.{phase}.batch": BATCH if name == "psfusion" else 1}
        changes |= {f"phases.{phase}.patch": PATCH} if name == "psfusion" else {}
    recipe = load_recipe(name, changes)
    return load_recipe({**recipe.plain(), "phases": recipe.plain()["phases"][:1]})


class WithEmbedding(Dataset[dict[str, Any]]):
    """Items with an embedding that stands for CLIP's, on both sides."""

    def __init__(self, data: Any, channels: int) -> None:
        self.data, self.channels = data, channels

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.data[index], "semantic": torch.ones(self.channels)}


def with_guidance(name: str, data: Any, recipe: Any) -> Any:
    """Return the pairs with what else the network wants."""
    return WithEmbedding(data, recipe.config.get("semantic_channels", 512)) if name == "sgafusion" else data


def published_rate(name: str, root: Path, recipe: Any, clock: Clock) -> tuple[float, float]:
    """Return pairs per second of the published loop and its share of waiting."""
    phase = recipe.phases[0]
    network = publish(create_model(name, **recipe.config)).train()
    objective = build_objective(objective_class(phase.objective), phase, network)
    optimizer = build_optimizer(network, phase.optimizer)
    data = PUBLISHED[name](root, phase.patch)
    loader = DataLoader(with_guidance(name, data, recipe), phase.batch, shuffle=True)
    waited, begun, batches = 0.0, clock(), endless(loader)
    for _ in range(phase.steps):
        asked = clock()
        batch = next(batches)
        waited += clock() - asked
        loss, terms = objective(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for term in terms.values():
            term.item()
    seconds = clock() - begun
    return phase.steps * phase.batch / seconds, waited / seconds


def our_rate(name: str, root: Path, recipe: Any, clock: Clock, variant: dict[str, Any]) -> tuple[float, float]:
    """Return pairs per second of :func:`fusionblocks.training.train` and its share of waiting, decoding included."""
    with tempfile.TemporaryDirectory() as folder:
        begun = clock()
        pairs: Any = open_dataset(root, cache=True, masks=None if name == "psfusion" else ())
        data = with_guidance(name, pairs, recipe)
        train(recipe, data, output=Path(folder) / "run", device="cpu", progress=False, **variant)
        seconds = clock() - begun
        lines = read_log(Path(folder) / "run")
    if "compile" in variant:
        lines = lines[WARM_UP:]
        seconds = sum(line["seconds"] for line in lines)
    waiting = sum(line["waited"] for line in lines) / sum(line["seconds"] for line in lines)
    return sum(line["pairs"] for line in lines) / seconds, waiting


def endless(loader: DataLoader[Any]) -> Iterator[Any]:
    while True:
        yield from loader


# --- memory ----------------------------------------------------------------------------------------------------------


def scenes(number: int) -> list[dict[str, Any]]:
    """Return scenes of 480x640 with all that any recipe asks of a pair."""
    items = []
    for seed in range(number):
        scene = synthetic_scene(seed)
        labels = scene.mask.clamp(max=CLASSES - 1)
        person = (scene.mask == CLASS_NAMES.index("person"))[None].float()
        items.append(
            {
                "infrared": scene.infrared,
                "visible": scene.visible,
                "labels": labels,
                "binary": (labels > 0)[None].float(),
                "boundary": boundary_mask(labels)[None].float(),
                "salient": person,
                "semantic": torch.ones(512),
                "infrared_mask": person,
                "visible_mask": labels[None].float() / (CLASSES - 1),
            }
        )
    return items


def full_step(name: str, phase: str, threads: int) -> tuple[int, float]:
    """Take one step of a phase at full width; return the process' peak of memory and the seconds of the step."""
    recipe = load_recipe(name, {f"phases.{phase}.epochs": None, f"phases.{phase}.steps": 1})
    alone = next(item for item in recipe.plain()["phases"] if item["name"] == phase)
    recipe = load_recipe({**recipe.plain(), "phases": [alone]})
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        pairs: Any = scenes(alone["batch"] * alone["accumulate"])
        train(recipe, pairs, output=folder, device="cpu", progress=False)
        (line,) = (line for line in read_log(folder) if "loss" in line)
    return harness.resident("VmHWM"), line["seconds"]


def full_width(threads: int) -> Iterator[dict[str, str]]:
    """Yield a row for each phase of each recipe, measured in a process of its own."""
    for name in list_recipes():
        for phase in load_recipe(name).phases:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                peak, seconds = pool.apply(full_step, (name, phase.name, threads))
            yield {
                "recipe": name,
                "phase": phase.name,
                "batches": f"{phase.accumulate} of {phase.batch}",
                "patch": str(phase.patch or "480x640"),
                "peak_gib": f"{peak / 2**30:.2f}",
                "seconds": f"{seconds:.1f}",
            }


# --- both ------------------------------------------------------------------------------------------------------------


def throughput(options: argparse.Namespace) -> Iterator[dict[str, str]]:
    """Yield the rows of each recipe: the published loop and ours, in turn."""
    clock: Clock = {"wall": time.perf_counter, "cpu": time.process_time}[options.clock]
    variants: list[dict[str, Any]] = [*VARIANTS, *([COMPILED] if options.compile else [])]
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "scenes"
        write_scenes(root, options.pairs, *options.size)
        for name in options.recipes:
            recipe = recipe_of(name, options.steps, full_width=options.full_width)
            rounds = [
                (
                    published_rate(name, root, recipe, clock),
                    *(our_rate(name, root, recipe, clock, variant) for variant in variants),
                )
                for _ in range(options.rounds)
            ]
            theirs, *ours = zip(*rounds)
            for variant, rates in zip(variants, ours):
                yield {
                    "recipe": name,
                    "width": "full" if options.full_width else "narrow",
                    "picture": "x".join(map(str, options.size)),
                    "patch": str(recipe.phases[0].patch or "whole"),
                    "batch": str(recipe.phases[0].batch),
                    "precision": variant["precision"],
                    "compiled": "yes" if "compile" in variant else "no",
                    "clock": options.clock,
                    "published_pairs_per_s": f"{median(rate for rate, _ in theirs):.2f}",
                    "published_waiting": f"{median(wait for _, wait in theirs):.3f}",
                    "pairs_per_s": f"{median(rate for rate, _ in rates):.2f}",
                    "waiting": f"{median(wait for _, wait in rates):.3f}",
                    "times_faster": f"{harness.median_ratio((a[0], b[0]) for a, b in zip(rates, theirs)):.2f}",
                }


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", metavar="recipe", help=f"which ones [{' '.join(PUBLISHED)}]")
    parser.add_argument("--memory", action="store_true", help="measure a step of each recipe at full width instead")
    parser.add_argument("--full-width", action="store_true", help="the recipe's own network, patch and batch")
    parser.add_argument("--compile", action="store_true", help="add a row of compiled training")
    parser.add_argument("--steps", type=int, default=16, help="[16]")
    parser.add_argument("--pairs", type=int, default=16, help="[16]")
    parser.add_argument("--rounds", type=int, default=3, help="[3]")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), help="of the pictures [480 640, as MSRS has]")
    parser.add_argument("--threads", type=int, default=1, help="[1]")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="[wall]")
    options = parser.parse_args(words)
    options.recipes = options.recipes or list(PUBLISHED)
    for name in options.recipes:
        if name not in PUBLISHED:
            parser.error(f"there is no published loop for {name!r}, only for {', '.join(PUBLISHED)}")
    return options


def main() -> None:
    """Run the command."""
    options = arguments()
    measured = full_width(options.threads) if options.memory else throughput(options)
    file = harness.RESULTS / ("training_memory.csv" if options.memory else "training.csv")
    machine = {**harness.machine(torch.device("cpu"), PACKAGES), "threads": str(options.threads)}
    for row in measured:
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
        harness.append_rows(file, [{**row, **machine}])


if __name__ == "__main__":
    main()
