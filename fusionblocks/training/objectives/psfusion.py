"""PSFusion's tasks, all at once: segment, find foreground and boundaries, fuse, and restore both pictures."""

from __future__ import annotations

from fusionblocks.training.objectives.base import Batch, Inputs, Objective


class MultiTask(Objective):
    """All tasks of PSFusion.

    Args:
        network: A :class:`fusionblocks.PSFusion`.
        losses: Weights of the terms by name.
        loss_options: Options of the terms by name.
    """

    inputs = ("infrared", "visible", "labels", "binary", "boundary", "salient")

    def predict(self, batch: Batch) -> Inputs:
        output = self.network(batch["infrared"], batch["visible"])
        return {
            "fused": output.fused,
            "mask": batch["salient"],
            "segmentation": output.segmentation,
            "binary": output.binary,
            "binary_labels": batch["binary"],
            "boundary": output.boundary,
            "boundary_labels": batch["boundary"],
            "visible_reconstruction": output.visible,
            "infrared_reconstruction": output.infrared,
        }
