"""``fusionblocks train``: a network from a recipe and pairs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fusionblocks.cli._console import BAD_INPUT, INTERRUPTED, err, open_device, out, refuse
from fusionblocks.cli._networks import import_network, is_import, settings_of
from fusionblocks.cli._ranges import ThermalRangeOption, parse_range

if TYPE_CHECKING:
    from fusionblocks.image.infrared import ThermalRange
    from fusionblocks.models.base import FusionModel
    from fusionblocks.training import Recipe


class Precision(StrEnum):
    """What the network computes in."""

    FLOAT32 = "no"
    FLOAT16 = "fp16"
    BFLOAT16 = "bf16"


def train(
    recipe: Annotated[str, typer.Option(help="A recipe of the library, fusionblocks or psfusion say; or a YAML file.")],
    data: Annotated[str, typer.Option(help="Folder of pairs, or a data set's name: msrs, roadscene, m3fd, ...")],
    output: Annotated[Path, typer.Option(help="Folder of the run: log, checkpoints, pictures, weights.")],
    validation: Annotated[
        str | None, typer.Option(help="Pairs to judge by, as --data; 'val' or 'test' takes that split of --data.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --output.")] = False,
    set: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Change a value of the recipe; may come again.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A network of your own, module:Class or file.py:Class, instead of the recipe's.")
    ] = None,
    model_set: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="An argument of --model; may come again.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Folder or file of a trained network to start from.")] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Folder that [bold]fusionblocks masks[/] wrote, for sgdfuse.")
    ] = None,
    guidance: Annotated[str | None, typer.Option(help="What computes the guidance: clip for sgafusion.")] = None,
    guidance_checkpoint: Annotated[str | None, typer.Option(help="Its published weights, a local file.")] = None,
    guidance_adapters: Annotated[
        Path | None, typer.Option(help="File that [bold]train-guidance[/] wrote, for clip.")
    ] = None,
    skip_unpaired: Annotated[bool, typer.Option("--skip-unpaired", help="Leave pictures without a partner.")] = False,
    thermal_range: ThermalRangeOption = None,
    cache: Annotated[bool, typer.Option("--cache", help="Decode the pictures once and keep them in memory.")] = False,
    workers: Annotated[int, typer.Option(help="Processes that read pairs.")] = 0,
    device: Annotated[str, typer.Option(help="Where to run: cpu, cuda, ..., or auto: a GPU if there is one.")] = "auto",
    precision: Annotated[Precision, typer.Option(help="Mixed precision.")] = Precision.FLOAT32,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between two checkpoints, besides each epoch's.")] = 1000,
    keep: Annotated[int, typer.Option(help="How many of the newest checkpoints stay, besides the best.")] = 2,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard's files too.")] = False,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile with torch.compile: minutes at the start of each phase.")
    ] = False,
) -> None:
    """Train a network as its paper did, or as a recipe of your own says.

    A run can be stopped at any moment: the same call with [bold]--resume[/] goes on. Several GPUs or machines:
    [bold]torchrun --nproc-per-node 4 -m fusionblocks.cli train ...[/].
    """
    from fusionblocks.training import load_recipe
    from fusionblocks.training import train as train_network

    try:
        place = None if device == "auto" else open_device(device)
        made = load_recipe(recipe, settings_of(set or []))
        network = _open_network(made, weights, model, model_set or [])
        _attach(network, guidance, guidance_checkpoint, guidance_adapters)
        learned, judged = _open_data(data, validation, skip_unpaired, parse_range(thermal_range), cache, masks)
        train_network(
            made,
            learned,
            output=output,
            validation=judged,
            model=network,
            resume=resume,
            device=place,
            precision=precision.value,
            workers=workers,
            checkpoint_every=checkpoint_every,
            keep=keep,
            tensorboard=tensorboard,
            compile=compile,
        )
        out.print(f"weights: {output / 'weights'}", highlight=False)
    except (*BAD_INPUT, ModuleNotFoundError, FloatingPointError) as error:
        refuse(error)
    except KeyboardInterrupt:
        err.print("interrupted: the same call with --resume goes on from the last checkpoint", highlight=False)
        raise typer.Exit(INTERRUPTED) from None


def _open_network(recipe: Recipe, weights: Path | None, model: str | None, settings: list[str]) -> FusionModel:
    """Return the recipe's network or one of the user's own, with weights drawn by the recipe's seed or loaded."""
    from fusionblocks.models import create_model, load_model, wrap
    from fusionblocks.training.batches import seeded

    if model is not None and not is_import(model):
        raise ValueError(
            f"--model must be module:Class or file.py:Class, got {model!r}; a recipe names its own network"
        )
    if settings and model is None:
        raise ValueError("--model-set goes with --model; --set changes the recipe")
    if model is not None:
        with seeded(recipe.seed):
            module = import_network(model, settings_of(settings))
        return wrap(module) if weights is None else load_model(module, weights)
    if recipe.model is None:
        raise ValueError("the recipe names no model, which the command line needs: pass --model")
    if weights is None:
        with seeded(recipe.seed):
            return create_model(recipe.model, pretrained=False, **recipe.config)
    return load_model(recipe.model, weights, **recipe.config)


def _attach(network: FusionModel, guidance: str | None, checkpoint: str | None, adapters: Path | None) -> None:
    from fusionblocks.cli._guides import attach_guide

    attach_guide(network, guidance, checkpoint, adapters, None)


def _open_data(
    data: str,
    validation: str | None,
    skip: bool,
    thermal_range: ThermalRange,
    cache: bool,
    masks: Path | None,
) -> tuple[Any, Any]:
    """Return the pairs to learn from and those to judge by."""
    from fusionblocks.data import open_dataset
    from fusionblocks.training.mask_files import WithMasks

    unpaired: Any = "skip" if skip else "error"

    def open_pairs(name: str, split: str) -> Any:
        pairs = open_dataset(name, split, thermal_range=thermal_range, unpaired=unpaired, cache=cache)
        return pairs if masks is None else WithMasks(pairs, masks / "infrared", masks / "visible")

    learned = open_pairs(data, "train")
    if validation is None:
        return learned, None
    same = validation in ("val", "test")
    return learned, open_pairs(data, validation) if same else open_pairs(validation, "val")
