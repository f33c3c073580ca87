"""How a network is judged while it learns: metrics of whole pictures, dealt to all processes."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from fusionblocks.image import luma
from fusionblocks.metrics import FusionEvaluator
from fusionblocks.training.journal import picture_grid
from fusionblocks.training.objectives import Objective
from fusionblocks.training.processes import gather_objects, move
from fusionblocks.training.recipe import ValidationRecipe

if TYPE_CHECKING:
    from accelerate import Accelerator

SHOWN = 4
"""Pairs in the grid of pictures."""


@torch.no_grad()
def validate(
    objective: Objective, network: nn.Module, data: Dataset[Any], recipe: ValidationRecipe, accelerator: Accelerator
) -> tuple[dict[str, float], Tensor]:
    """Return the means of the metrics over all pairs, and the first pairs with what was fused of them.

    Args:
        objective: What knows how the network is called.
        network: The network, or the running average of it; its mode is kept.
        data: The pairs; whole pictures of any sizes.
        recipe: Which metrics.
        accelerator: Where to compute, and how many processes share the pairs.
    """
    evaluator = FusionEvaluator(metrics=recipe.metrics, convention=recipe.convention)
    rows = []
    was_training = network.training
    network.eval()
    try:
        for index in range(accelerator.process_index, len(data), accelerator.num_processes):  # type: ignore[arg-type]
            item = data[index]
            batch = move({name: _as_batch(value) for name, value in item.items()}, accelerator.device)
            with accelerator.autocast():
                fused = objective.fuse(network, batch)
            fused, infrared, visible = (picture.float().clamp(0, 1) for picture in (fused, *_pair(batch)))
            evaluator.update(_gray(fused), infrared, _gray(visible), names=[str(item.get("name", index))])
            if index < SHOWN:
                rows.append((infrared[0], visible[0], fused[0]))
    finally:
        network.train(was_training)
    return _means(evaluator), picture_grid(rows) if rows else torch.zeros(3, 1, 1)


def _means(evaluator: FusionEvaluator) -> dict[str, float]:
    """Return the means over the pairs of all processes."""
    first, *others = gather_objects(evaluator)
    first.merge(*others)
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # of values that are not finite
        return {name: float(value) for name, value in first.compute().mean.items()}


def _as_batch(value: Any) -> Any:
    return value[None] if isinstance(value, Tensor) else [value]


def _pair(batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    return batch["infrared"], batch["visible"]


def _gray(picture: Tensor) -> Tensor:
    return luma(picture) if picture.shape[1] == 3 else picture
