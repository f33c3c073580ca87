"""SMFNet's two phases: the encoder learns to describe both pictures, then all of it learns to fuse."""

from __future__ import annotations

from fusionblocks.training.objectives.base import Batch, Inputs, Objective


class Reconstruct(Objective):
    """Phase I: each picture is rebuilt from its own base, detail and graph features.

    Args:
        network: A :class:`fusionblocks.SMFNet`.
        losses: Weights of the terms by name.
        loss_options: Options of the terms by name.
    """

    validates = False  # nothing is fused yet

    def predict(self, batch: Batch) -> Inputs:
        thermal, bright, graph = self.network.decompose(batch["infrared"], batch["visible"])
        decode = self.network.decoder
        return {
            "infrared_reconstruction": decode(thermal.detail + thermal.base + graph.infrared),
            "visible_reconstruction": decode(bright.detail + bright.base + graph.visible),
            "base_infrared": thermal.base,
            "base_visible": bright.base,
            "detail_infrared": thermal.detail,
            "detail_visible": bright.detail,
        }


class Fuse(Objective):
    """Phase II: the branches are fused and decoded; base features shall agree and details differ.

    Args:
        network: A :class:`fusionblocks.SMFNet`.
        losses: Weights of the terms by name.
        loss_options: Options of the terms by name.
    """

    weights = {"intensity_max": 1.0, "joint_gradient": 10.0}

    def predict(self, batch: Batch) -> Inputs:
        output = self.network(batch["infrared"], batch["visible"])
        return {"fused": output.fused, **output.features}
