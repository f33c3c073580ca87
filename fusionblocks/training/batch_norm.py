"""Batch norm while a network learns: it needs two values a channel, which one pair does not give of a pooled map."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import default_collate

from fusionblocks.training.batches import seeded
from fusionblocks.training.learning import freeze_all_but
from fusionblocks.training.objectives import Objective
from fusionblocks.training.processes import move
from fusionblocks.training.recipe import PhaseRecipe


def least_batch(objective: Objective, batch: int) -> int:
    """Return how many pairs a batch must have: two for a network with batch norm, unless a recipe asks for one."""
    return min(batch, 2) if _norms(objective) else 1


def check_single_pairs(
    objective: Objective, recipe: PhaseRecipe, first: Callable[[], Mapping[str, Any]], pairs: int | None, processes: int
) -> None:
    """Raise if a phase has batches of one pair and a batch norm that cannot learn from one.

    What maps a norm sees is known by running the network alone: a copy of it, on one pair.

    Args:
        objective: The phase's objective.
        recipe: The phase.
        first: What returns a pair as the phase sees it.
        pairs: How many pairs there are; None for a stream.
        processes: Number of processes.
    """
    if not _norms(objective):
        return
    trial = copy.deepcopy(objective).train()
    freeze_all_but(trial.network, recipe.parts)
    why = "its batch is 1: take 2 or more"
    if recipe.batch > 1:
        why = f"the number of pairs is {pairs}, of processes {processes}: give it {2 * processes} pairs or more"
    for name, norm in _norms(trial.network).items():
        message = (
            f"phase {recipe.name!r} has batches of one pair, of which the batch norm {name!r} gets one value a channel "
            f"and cannot learn; {why}"
        )
        norm.register_forward_pre_hook(functools.partial(_refuse_single_values, message))
    device = next((parameter.device for parameter in trial.parameters()), torch.device("cpu"))
    with torch.no_grad(), seeded(0):
        trial(move(default_collate([first()]), device))


def _norms(network: nn.Module) -> dict[str, _BatchNorm]:
    """Return the batch norms of a network, but for those that gather their statistics from all processes."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm)
    }


def _refuse_single_values(message: str, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    if norm.training and inputs[0].numel() == inputs[0].shape[1]:
        raise ValueError(message)
