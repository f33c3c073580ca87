"""SGAFusion's two phases: fuse and segment clean pairs, then fuse what haze and darkness have degraded."""

from __future__ import annotations

from fusionblocks.training.objectives.base import Batch, Inputs, Objective


class SegmentAndFuse(Objective):
    """Clean pairs with labels.

    Args:
        network: A :class:`fusionblocks.SGAFusion`.
        losses: Weights of the terms by name.
        loss_options: Options of the terms by name.
    """

    inputs = ("infrared", "visible", "labels")

    def predict(self, batch: Batch) -> Inputs:
        output = self.call(self.network, batch)
        return {"fused": output.fused, "segmentation": output.segmentation}


class FuseDegraded(Objective):
    """Degraded visible pictures; the loss compares with the clean ones.

    Args:
        network: A :class:`fusionblocks.SGAFusion`.
        losses: Weights of the terms by name.
        loss_options: Options of the terms by name.
    """

    inputs = ("infrared", "visible", "clean_visible")

    def predict(self, batch: Batch) -> Inputs:
        return {"fused": self.call(self.network, batch).fused, "visible": batch["clean_visible"]}
