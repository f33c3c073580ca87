"""``fusionblocks train-guidance``: teach CLIP to name what is wrong with a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from fusionblocks.cli._console import BAD_INPUT, INTERRUPTED, err, open_device, out, progress_bar, refuse

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import Dataset

    Parts = tuple[Dataset[tuple[Tensor, int]], Dataset[tuple[Tensor, int]]]

SCENE = {"height": 240, "width": 320}
DEFAULT_STEPS = 300
# what degrades visible pictures
DEFAULT_CLASSES = ("clean", "haze", "low_light", "over_exposure", "rain", "noise", "low_contrast")


class Precision(StrEnum):
    """What training computes in."""

    FLOAT32 = "no"
    FLOAT16 = "fp16"
    BFLOAT16 = "bf16"


def train_guidance(
    output: Annotated[Path, typer.Option(help="File of adapters and head to write, .safetensors.")],
    data: Annotated[Path | None, typer.Option(help="Folder with a folder of pictures for each class.")] = None,
    clean: Annotated[Path | None, typer.Option(help="Folder of clean pictures, to be degraded on the fly.")] = None,
    synthetic: Annotated[int | None, typer.Option(help="Draw this many clean scenes, to be degraded.")] = None,
    classes: Annotated[
        str | None, typer.Option(help="Class names with commas. [the folders' names; what degrades visible pictures]")
    ] = None,
    model: Annotated[str, typer.Option(help="CLIP model, a name of open_clip.")] = "ViT-B-32-quickgelu",
    pretrained: Annotated[
        str, typer.Option(help="Its weights: an open_clip tag, a hub name, a local file, or 'random' to try out.")
    ] = "openai",
    rank: Annotated[int, typer.Option(help="Rank of the adapters; 0 trains the head alone.")] = 4,
    preprocessing: Annotated[
        str, typer.Option(help="published: as SGAFusion's authors; clip: CLIP's own normalisation.")
    ] = "published",
    steps: Annotated[int | None, typer.Option(help=f"Batches to learn from. [{DEFAULT_STEPS}]")] = None,
    epochs: Annotated[int | None, typer.Option(help="Times to go through the pictures, instead of --steps.")] = None,
    batch_size: Annotated[int, typer.Option(help="Pictures a batch.")] = 32,
    lr: Annotated[float, typer.Option(help="Highest learning rate.")] = 1e-3,
    held_out: Annotated[float, typer.Option(help="Share of the pictures to judge by.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Of the split, the draws and the first weights.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes that read and degrade pictures.")] = 0,
    device: Annotated[str, typer.Option(help="Where to run: auto (a GPU if there is one), cpu, cuda:1, ...")] = "auto",
    precision: Annotated[Precision, typer.Option(help="Mixed precision.")] = Precision.FLOAT32,
) -> None:
    """Train a classifier of degradations on CLIP: low-rank adapters and a head, the rest of CLIP stays as it is.

    Pictures come from [bold]--data[/], [bold]--clean[/] or [bold]--synthetic[/].
    """
    import torch
    from torch.utils.data import DataLoader

    from fusionblocks.guidance import CLIPDegradationClassifier
    from fusionblocks.training.guidance import class_accuracy, train_classifier
    from fusionblocks.training.processes import open_accelerator

    try:
        _check_numbers(steps=steps, epochs=epochs, batch_size=batch_size)
        _check_output(output)
        accelerator = open_accelerator(open_device(device), precision.value)
        torch.manual_seed(seed)
        source = _open_source(data, clean, synthetic, _split_names(classes), held_out, seed)
        weights = None if pretrained == "random" else pretrained
        if weights is None:
            err.print(
                f"[yellow]warning:[/] {model} has random weights: the file fits no other {model}", highlight=False
            )
        classifier = CLIPDegradationClassifier(
            model, weights, classes=source.classes, rank=rank, preprocessing=preprocessing
        )
        total = steps or (DEFAULT_STEPS if epochs is None else math.ceil(epochs * source.size() / batch_size))
        learned, judged = source.datasets(total * batch_size, _side(classifier.visual))
        batches = DataLoader(learned, batch_size, shuffle=True, num_workers=workers)
        losses = train_classifier(classifier, batches, steps=total, lr=lr, accelerator=accelerator)
        if accelerator.is_main_process:
            accuracy = class_accuracy(classifier, DataLoader(judged, batch_size, num_workers=workers))
            classifier.save_adapters(output)
            _report(accuracy, source.judged_per_class(), losses)
            out.print(f"adapters and heads: {output}", highlight=False)
    except (*BAD_INPUT, ModuleNotFoundError, FloatingPointError) as error:
        refuse(error)
    except KeyboardInterrupt:
        err.print(f"interrupted: {output} is not written", highlight=False)
        raise typer.Exit(INTERRUPTED) from None


# --- what the pictures come from -------------------------------------------------------------------------------------


class _Folders:
    """Pictures of class folders, split class by class."""

    def __init__(self, folder: Path, classes: tuple[str, ...] | None, share: float, seed: int) -> None:
        from fusionblocks.data import class_folders, hold_out

        listing = class_folders(folder, classes)
        self.classes, self.seed = tuple(listing), seed
        self.learned: list[tuple[Path, int]] = []
        self.judged: list[tuple[Path, int]] = []
        for label, (name, files) in enumerate(listing.items()):
            parts = hold_out(files, share, seed=seed, what=f"the pictures of class folder {name} in {folder}")
            for items, part in zip((self.learned, self.judged), parts):
                items += [(file, label) for file in part]

    def size(self) -> int:
        return len(self.learned)

    def judged_per_class(self) -> list[int]:
        return [sum(label == index for _, label in self.judged) for index in range(len(self.classes))]

    def datasets(self, wanted: int, side: int) -> Parts:
        from fusionblocks.data import LabelledPictures

        return (
            LabelledPictures(self.learned, size=side, flip=True, seed=self.seed),
            LabelledPictures(self.judged, size=side),
        )


class _Clean:
    """Clean pictures to be degraded, some of them held out."""

    def __init__(self, pictures: Sequence[Path | Tensor], classes: tuple[str, ...], share: float, seed: int) -> None:
        from fusionblocks.data import hold_out

        self.classes, self.seed = classes, seed
        self.learned, self.judged = hold_out(pictures, share, seed=seed, what="the clean pictures")

    def size(self) -> int:
        return len(self.learned) * len(self.classes)

    def judged_per_class(self) -> list[int]:
        return [len(self.judged)] * len(self.classes)

    def datasets(self, wanted: int, side: int) -> Parts:
        from fusionblocks.data import DegradedPictures

        return (
            DegradedPictures(self.learned, self.classes, length=wanted, size=side, flip=True, seed=2 * self.seed),
            DegradedPictures(self.judged, self.classes, size=side, seed=2 * self.seed + 1),
        )


def _open_source(
    data: Path | None,
    clean: Path | None,
    synthetic: int | None,
    classes: tuple[str, ...] | None,
    share: float,
    seed: int,
) -> _Folders | _Clean:
    """Return the pictures of the one option that was given."""
    from fusionblocks._support.checks import check_whole
    from fusionblocks.data import DEGRADATIONS
    from fusionblocks.data.labelled import CLEAN, check_known, pictures_in

    given = [name for name, value in (("data", data), ("clean", clean), ("synthetic", synthetic)) if value is not None]
    if len(given) != 1:
        came = " and ".join(f"--{name}" for name in given) or "none of them"
        raise ValueError(f"one of --data, --clean and --synthetic is needed, got {came}")
    if not 0 < share < 1:
        raise ValueError(f"--held-out must lie between 0 and 1, got {share}")
    if data is not None:
        return _Folders(data, classes, share, seed)
    classes = classes or DEFAULT_CLASSES
    check_known("class", classes, (CLEAN, *DEGRADATIONS))
    if clean is not None:
        if not clean.is_dir():
            raise NotADirectoryError(f"--clean must be a folder, got {clean}")
        return _Clean(pictures_in(clean), classes, share, seed)
    number = check_whole("--synthetic", synthetic, 2)
    return _Clean(_draw(number), classes, share, seed)


def _draw(number: int) -> list[Tensor]:
    """Draw the visible pictures of clean scenes, under a progress bar."""
    from fusionblocks.data import synthetic_scene

    pictures = []
    with progress_bar("drawing") as progress:
        task = progress.add_task("drawing", total=number, name="")
        for seed in range(number):
            pictures.append(synthetic_scene(seed, **SCENE).visible)
            progress.advance(task)
    return pictures


# --- checks and the report -------------------------------------------------------------------------------------------


def _split_names(classes: str | None) -> tuple[str, ...] | None:
    if classes is None:
        return None
    names = tuple(name.strip() for name in classes.split(","))
    if len(names) < 2 or not all(names) or len(set(names)) < len(names):
        raise ValueError(f"--classes must be two or more different names with commas between them, got {classes!r}")
    return names


def _check_numbers(**numbers: int | None) -> None:
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {number}")
    if None not in (numbers["steps"], numbers["epochs"]):
        raise ValueError("--steps and --epochs exclude each other")


def _check_output(output: Path) -> None:
    """Refuse a file that could not be written, before anything is learned."""
    if output.suffix != ".safetensors":
        raise ValueError(f"--output {output} must end in .safetensors")
    if output.is_dir() or not output.parent.is_dir():
        raise ValueError(f"--output {output} cannot be written: it is a folder, or its folder does not exist")


def _side(tower: Any) -> int:
    """Return the rows and columns that a tower sees."""
    size = tower.image_size
    return size if isinstance(size, int) else max(size)


def _report(accuracy: dict[str, float], numbers: Sequence[int], losses: Sequence[float]) -> None:
    """Print how often each class was recognised in pictures that nothing was learned from."""
    table = Table("class", "held-out pictures", "recognised")
    for (name, share), number in zip(accuracy.items(), numbers, strict=True):
        table.add_row(escape(name), str(number), f"{share:.1%}")
    overall = sum(share * number for share, number in zip(accuracy.values(), numbers)) / sum(numbers)
    table.add_section()
    table.add_row("all", str(sum(numbers)), f"{overall:.1%}")
    out.print(table)
    last = losses[-min(len(losses), 20) :]
    out.print(f"loss {losses[0]:.3f} at the first step, {sum(last) / len(last):.3f} at the last", highlight=False)
