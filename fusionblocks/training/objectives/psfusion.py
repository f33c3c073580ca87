"""PSFusion's tasks, all at once: segment, find foreground and boundaries, fuse, and restore both pictures."""

from __future__ import annotations

from torch import Tensor

from fusionblocks.image import VOID
from fusionblocks.training.objectives.base import Batch, Inputs, Objective


class MultiTask(Objective):
    """All tasks of PSFusion.

    Pixels whose label is 255, no class, teach neither classes nor foreground nor boundaries, whatever the masks say.

    Args:
        network: A :class:`fusionblocks.PSFusion`.
        losses: Weights of the terms by name.
        loss_options: Options of the terms by name.
    """

    inputs = ("infrared", "visible", "labels", "binary", "boundary", "salient")

    def predict(self, batch: Batch) -> Inputs:
        void = batch["labels"].reshape(batch["binary"].shape) == VOID
        output = self.network(batch["infrared"], batch["visible"])
        return {
            "fused": output.fused,
            "mask": batch["salient"],
            "segmentation": output.segmentation,
            "binary": output.binary,
            "binary_labels": _without(batch["binary"], void),
            "boundary": output.boundary,
            "boundary_labels": _without(batch["boundary"], void),
            "visible_reconstruction": output.visible,
            "infrared_reconstruction": output.infrared,
        }


def _without(mask: Tensor, void: Tensor) -> Tensor:
    """Return a mask as labels of two classes, with the pixels of no class marked."""
    return mask.float().masked_fill(void, VOID)
