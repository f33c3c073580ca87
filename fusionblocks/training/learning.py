"""What learns in a phase, by which optimiser, and the running average of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fusionblocks._support.names import closest
from fusionblocks.training.recipe import OptimizerRecipe


def check_parts(network: nn.Module, parts: tuple[str, ...]) -> None:
    """Raise unless a network has parameters in each of the parts."""
    names = [name for name, _ in network.named_parameters()]
    for part in parts:
        if not any(is_in(name, part) for name in names):
            known = sorted({name.partition(".")[0] for name in names})
            raise ValueError(f"the network has no part {part!r}{closest(part, known)}; its parts: {', '.join(known)}")


def freeze_all_but(network: nn.Module, parts: tuple[str, ...]) -> None:
    """Let only the parameters learn whose names begin with one of the parts; none given: all."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not parts or any(is_in(name, part) for part in parts))
    for module in network.modules():  # what is frozen neither drops out nor keeps statistics
        own = list(module.parameters())
        if own and not any(parameter.requires_grad for parameter in own):
            module.eval()


def is_in(name: str, part: str) -> bool:
    """Whether a parameter's name lies in a part of the network."""
    return name == part or name.startswith(f"{part}.")


def build_optimizer(network: nn.Module, recipe: OptimizerRecipe) -> torch.optim.Optimizer:
    """Return the optimiser of the parameters that learn, with one group for each rate of its own."""
    learning = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    groups: dict[str, list[Tensor]] = {"": [], **{part: [] for part in recipe.rates}}
    for name, parameter in learning.items():
        groups[next((part for part in recipe.rates if is_in(name, part)), "")].append(parameter)
    for part, found in groups.items():
        if part and not found:
            raise ValueError(f"optimizer.rates names {part!r}, a part without parameters that learn")
    settings = [
        {"params": found, "lr": recipe.rates.get(part, recipe.lr), "full_lr": recipe.rates.get(part, recipe.lr)}
        for part, found in groups.items()
        if found
    ]
    if recipe.name == "sgd":
        return torch.optim.SGD(settings, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    kind = torch.optim.AdamW if recipe.name == "adamw" else torch.optim.Adam
    return kind(settings, weight_decay=recipe.weight_decay)


def open_average(network: Any, decay: float | None) -> AveragedModel | None:
    """Return a running average of weights and buffers; a guide is not a part of the network and is not copied."""
    if decay is None:
        return None
    guide = getattr(network, "_guide", None)
    if guide:
        network._guide = ()
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    if guide:
        network._guide = average.module._guide = guide
    return average
