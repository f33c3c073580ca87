"""What happens to a pair before the network sees it, as a phase's recipe says."""

from __future__ import annotations

from typing import Any

from fusionblocks import data
from fusionblocks.training.batches import Transform
from fusionblocks.training.recipe import PhaseRecipe


def transforms_of(recipe: PhaseRecipe) -> list[Transform]:
    """Return the transforms of a phase in their order: crop first, so that the rest is done to less."""
    transforms: list[Any] = []
    if recipe.patch is not None:
        transforms.append(data.PairedCrop(recipe.patch))
    if "flip" in recipe.augment:
        transforms.append(data.PairedFlip())
    if "rotate" in recipe.augment:
        transforms.append(data.PairedRotate())
    if recipe.degrade is not None:
        transforms.append(data.PairedDegrade(**recipe.degrade))
    return transforms
