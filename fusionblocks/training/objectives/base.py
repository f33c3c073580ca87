"""What all objectives share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fusionblocks.losses import FusionLoss
from fusionblocks.models.base import FusionModel, FusionOutput

Batch = Mapping[str, Any]
Inputs = dict[str, Tensor]


class Objective(nn.Module):
    """A network with what is asked of it: called with a batch, it returns the loss and its terms.

    A subclass writes :meth:`predict`, which runs the network and names what the loss sees beside the batch. The loss is
    a :class:`fusionblocks.losses.FusionLoss` of the recipe's weights, measured in float32 whatever the network computes
    in.

    A subclass may further say which ``weights`` hold when the recipe has none, bring ``terms`` of its own (functions of
    what the loss sees, by name), list the ``inputs`` that it needs of every pair, and say with ``validates`` whether
    the network fuses at all in this phase.

    Args:
        network: What learns.
        losses: Weights of the terms by name.
        loss_options: Options of the terms by name.

    Raises:
        ValueError: If there is no such term or option; the closest one is offered.

    Example:
        >>> import torch
        >>> from fusionblocks import create_model
        >>> from fusionblocks.training import Objective
        >>> class Copy(Objective):
        ...     terms = {"distance": lambda fused, visible: (fused - visible.mean(1, keepdim=True)).abs().mean()}
        ...     weights = {"distance": 2.0}
        ...     def predict(self, batch):
        ...         return {"fused": self.call(self.network, batch).fused}
        >>> objective = Copy(create_model("laplacian"))
        >>> total, terms = objective({"infrared": torch.rand(1, 1, 32, 32), "visible": torch.rand(1, 3, 32, 32)})
        >>> bool(total == 2 * terms["distance"])
        True
    """

    weights: ClassVar[Mapping[str, float]] = {}
    terms: ClassVar[Mapping[str, Callable[..., Tensor]]] = {}
    inputs: ClassVar[tuple[str, ...]] = ("infrared", "visible")
    validates: ClassVar[bool] = True

    def __init__(
        self,
        network: nn.Module,
        losses: Mapping[str, float] | None = None,
        loss_options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        self.network: Any = network
        self.loss = FusionLoss(losses or self.weights, options=loss_options, terms=self.terms)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and its terms without weights and gradients."""
        seen = {name: value for name, value in batch.items() if isinstance(value, Tensor)} | self.predict(batch)
        with torch.autocast(batch["infrared"].device.type, enabled=False):
            report = self.loss(**{name: _single(value) for name, value in seen.items()})
        return report.total, report.terms

    def predict(self, batch: Batch) -> Inputs:
        """Return what the network makes of a batch, under the names that the loss knows."""
        raise NotImplementedError

    def call(self, network: nn.Module, batch: Batch) -> Any:
        """Run a network on a batch's pairs and the guidance that it wants."""
        return network(batch["infrared"], batch["visible"], **guidance_of(network, batch))

    def fuse(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the fused picture ``(B, 1 or 3, H, W)``, for validation."""
        return fused_of(self.call(network, batch))


def guidance_of(network: nn.Module, batch: Batch) -> Inputs:
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


def _single(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value
