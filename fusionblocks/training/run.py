"""``train``: a recipe and pairs in, a trained network out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from fusionblocks._support.checks import check_whole
from fusionblocks.models.registry import create_model
from fusionblocks.training.batches import seeded
from fusionblocks.training.engine import Settings, Trainer
from fusionblocks.training.objectives import Objective
from fusionblocks.training.processes import open_accelerator
from fusionblocks.training.recipe import Recipe, load_recipe

Pairs = Dataset[Any] | str | Path


def train(
    recipe: Recipe | str | Path | Mapping[str, Any],
    data: Pairs,
    *,
    output: str | Path,
    validation: Pairs | None = None,
    model: nn.Module | None = None,
    objectives: Mapping[str, type[Objective]] | None = None,
    resume: bool = False,
    device: str | torch.device | None = None,
    precision: str = "no",
    workers: int = 0,
    checkpoint_every: int = 1000,
    keep: int = 2,
    progress: bool = True,
    tensorboard: bool = False,
    compile: bool = False,
) -> nn.Module:
    """Train a network as a recipe says.

    A run can be killed at any moment and resumed: on one CPU process the losses are then bitwise those of a run that
    was never killed. Several GPUs or machines: call it from a script that ``accelerate launch`` or ``torchrun`` starts.

    In ``output`` there will be ``log.jsonl``, a line a step; ``checkpoints/``; ``pictures/`` of each validation;
    ``weights/``, the trained network as ``save_pretrained`` writes it.

    Args:
        recipe: A recipe, the name of one that comes with the library, a YAML file, or what such a file holds.
        data: A dataset whose items are dicts with ``infrared`` ``(1, H, W)`` and ``visible`` ``(3, H, W)`` in [0, 1],
            and what else the recipe's objectives ask for; or what :func:`fusionblocks.data.open_dataset` opens.
        output: Folder of the run.
        validation: Pairs to judge by, as ``data``; None judges nothing.
        model: The network; None makes the recipe's, with freshly drawn weights.
        objectives: Objectives of your own by the names that the recipe calls them.
        resume: Whether to go on from the last checkpoint in ``output``, if there is one.
        device: Where to compute, ``"cpu"``, ``"cuda"``, ...; None: a GPU if there is one.
        precision: ``"no"``, ``"bf16"`` or ``"fp16"``: what the network computes in. Losses are always float32.
        workers: Processes that read pairs, for each process that learns.
        checkpoint_every: Steps between two checkpoints; there is one after every epoch in any case.
        keep: How many of the newest checkpoints stay, besides the best.
        progress: Whether to show a progress bar.
        tensorboard: Whether to write TensorBoard's files.
        compile: Whether to compile network and losses with :func:`torch.compile`: minutes at the start of each phase,
            for steps that may take less time.

    Returns:
        The trained network in evaluation mode.

    Raises:
        ModuleNotFoundError: If accelerate is not installed.
        ValueError: If the recipe or the data do not fit, or the checkpoint is one of another recipe.
        FloatingPointError: If a loss is no longer finite; the batch is kept for inspection.
        OSError: If a checkpoint cannot be written; the last good one stays.

    Example:
        >>> import tempfile
        >>> from fusionblocks.data import synthetic_scene
        >>> from fusionblocks.training import read_log, train
        >>> pairs = [synthetic_scene(seed, height=32, width=32)._asdict() for seed in range(2)]
        >>> recipe = {
        ...     "model": "smfnet",
        ...     "config": {"channels": 16, "num_heads": 4, "base_layers": 1, "base_depth": 1},
        ...     "phases": {"fusion": {"objective": "smfnet_fusion", "steps": 2, "batch": 2}},
        ... }
        >>> folder = tempfile.mkdtemp()
        >>> model = train(recipe, pairs, output=folder, progress=False)
        >>> [line["step"] for line in read_log(folder)]
        [1, 2]
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    check_whole("workers", workers, 0)
    check_whole("checkpoint_every", checkpoint_every, 1)
    check_whole("keep", keep, 1)
    if model is None and recipe.model is None:
        raise ValueError("the recipe names no model: pass one to train")
    if model is None:
        with seeded(recipe.seed):
            model = create_model(str(recipe.model), pretrained=False, **recipe.config)
    settings = Settings(
        Path(output),
        workers=workers,
        checkpoint_every=checkpoint_every,
        keep=keep,
        progress=progress,
        tensorboard=tensorboard,
        compile=compile,
    )
    accelerator = open_accelerator(device, precision)
    pairs, judged = open_pairs(data, "train"), None if validation is None else open_pairs(validation, "val")
    Trainer(recipe, model, pairs, judged, accelerator, settings, objectives).run(resume)
    return model.eval()


def open_pairs(data: Pairs, split: str) -> Dataset[Any]:
    """Return a dataset, opened by name or folder unless it is one."""
    if isinstance(data, str | Path):
        from fusionblocks.data import open_dataset

        return open_dataset(data, split=split)
    if not hasattr(data, "__getitem__") and not hasattr(data, "__iter__"):
        raise TypeError(f"data must be a dataset, a name or a folder, got {type(data).__name__}")
    return data
