"""What all objectives share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fusionblocks.models.base import FusionModel, FusionOutput, closest

Batch = Mapping[str, Any]
Terms = dict[str, Tensor]


class Objective(nn.Module):
    """A network with what is asked of it: calling it with a batch gives the loss and its terms.

    A subclass lists the weights of its terms, writes :meth:`predict`, which runs the network, and :meth:`measure`,
    which returns the unweighted terms. The terms are measured in float32 whatever the network computes in.

    Args:
        network: What learns.
        losses: Weights of terms that differ from the paper's.

    Raises:
        ValueError: If there is no such term; the closest one is offered.
    """

    weights: ClassVar[Mapping[str, float]] = {}
    inputs: ClassVar[tuple[str, ...]] = ("infrared", "visible")
    validates: ClassVar[bool] = True

    def __init__(self, network: nn.Module, losses: Mapping[str, float] | None = None) -> None:
        super().__init__()
        self.network = network
        for name in losses or {}:
            if self.weights and name not in self.weights:
                known = list(self.weights)
                raise ValueError(f"unknown loss term {name!r}{closest(name, known)}; known: {', '.join(known)}")
        self.term_weights = {**self.weights, **(losses or {})}

    def forward(self, batch: Batch) -> tuple[Tensor, Terms]:
        """Return the loss and its terms, which are detached and unweighted."""
        output = self.predict(batch)
        with torch.autocast(batch["infrared"].device.type, enabled=False):
            terms = self.measure(in_float32(output), batch)
        total = sum(self.term_weights[name] * term for name, term in terms.items())
        return torch.as_tensor(total), {name: term.detach() for name, term in terms.items()}

    def predict(self, batch: Batch) -> Any:
        """Return what the network makes of a batch."""
        return self.call(self.network, batch)

    def measure(self, output: Any, batch: Batch) -> Terms:
        """Return the terms of the loss by name."""
        raise NotImplementedError

    def call(self, network: nn.Module, batch: Batch) -> Any:
        """Run a network on a pair and the guidance that it wants."""
        return network(batch["infrared"], batch["visible"], **guidance_of(network, batch))

    def fuse(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the fused picture ``(B, 1 or 3, H, W)`` for validation."""
        return fused_of(self.call(network, batch))


def guidance_of(network: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Return the guidance of a batch by name: what the data hold, else what the attached guide computes."""
    if not isinstance(network, FusionModel) or not network.guidance_names:
        return {}
    held = {name: batch[name] for name in network.guidance_names if name in batch}
    if len(held) == len(network.guidance_names):
        return held
    with torch.no_grad():
        asked = network.ask_guide(batch["infrared"], batch["visible"])
    if not asked:
        missing = ", ".join(name for name in network.guidance_names if name not in held)
        raise ValueError(
            f"{network.name!r} needs {missing} of every pair: let the data hold it, or attach a guide that computes it"
        )
    return {**asked, **held}


def fused_of(output: Any) -> Tensor:
    """Return the fused picture of what a network returned."""
    return output.fused if isinstance(output, FusionOutput) else output


def in_float32(value: Any) -> Any:
    """Return an output with all its tensors in float32."""
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, FusionOutput):
        return value.map(in_float32)
    if isinstance(value, tuple):
        make: Callable[..., Any] = type(value)._make if hasattr(value, "_make") else type(value)
        return make(in_float32(item) for item in value)
    return value
