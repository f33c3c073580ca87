"""The objective for any network that returns a fused picture."""

from __future__ import annotations

from fusionblocks.models.base import FusionOutput
from fusionblocks.training.objectives.base import Batch, Inputs, Objective


class Fusion(Objective):
    """Whatever terms a recipe names, of the fused picture and what else the network returns.

    Args:
        network: A network that takes ``infrared`` and ``visible`` and returns a picture or a ``FusionOutput``.
        losses: Weights of the terms by name.
        loss_options: Options of the terms by name.
    """

    weights = {"intensity_max": 1.0, "joint_gradient": 10.0}

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
