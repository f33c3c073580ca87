"""The objective for any network that returns a fused picture."""

from __future__ import annotations

from typing import Any

from torch import nn

from fusionblocks.image import luma
from fusionblocks.models.base import FusionOutput
from fusionblocks.models.wrapping import visible_of
from fusionblocks.training.objectives.base import Batch, Inputs, Objective


class Fusion(Objective):
    """Whatever terms a recipe names, of the fused picture and what else the network returns.

    Args:
        network: A network that takes ``infrared`` and ``visible``, RGB or luma (found out as by
            :func:`fusionblocks.wrap`), and returns a picture or a ``FusionOutput``.
        losses: Weights of the terms by name.
        loss_options: Options of the terms by name.
    """

    weights = {"intensity_max": 1.0, "joint_gradient": 10.0}
    _takes_luma: bool | None = None

    def call(self, network: nn.Module, batch: Batch) -> Any:
        """Run a network on a batch's pairs, their luma if it takes that."""
        if self._takes_luma is None:  # found out when it runs for the first time
            self._takes_luma = visible_of(network) == "luma"
        return super().call(network, {**batch, "visible": luma(batch["visible"])} if self._takes_luma else batch)

    def predict(self, batch: Batch) -> Inputs:
        output = self.call(self.network, batch)
        if not isinstance(output, FusionOutput):
            return {"fused": output}
        found = {
            "fused": output.fused,
            "segmentation": output.segmentation,
            "binary": output.binary,
            "boundary": output.boundary,
            "visible_reconstruction": output.visible,
            "infrared_reconstruction": output.infrared,
            **(output.features or {}),
        }
        return {name: value for name, value in found.items() if value is not None}
