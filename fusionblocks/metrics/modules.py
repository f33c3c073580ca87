"""Metrics as torchmetrics modules, for loops that collect over batches and processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fusionblocks.metrics.conventions import METRICS, check_convention, check_metrics, evaluate

try:
    from torchmetrics import Metric as TorchMetric
except ImportError as error:
    raise ImportError("FusionMetric needs torchmetrics: pip install 'fusionblocks[metrics]'") from error


class FusionMetric(TorchMetric):
    """The mean of a metric over all pictures that were seen, as a torchmetrics module.

    It adds up over batches and, where PyTorch is distributed, over processes; ``MetricCollection`` takes it. Pictures
    whose value is not finite (a PSNR of two equal pictures) make the mean so.

    Args:
        name: One of ``METRICS``.
        convention: Whose number, see :func:`evaluate`.
        **options: Of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If the metric or the convention is unknown; the message offers the closest match.

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import FusionMetric
        >>> entropy = FusionMetric("EN")
        >>> for batch in torch.rand(3, 3, 2, 1, 48, 64):
        ...     entropy.update(*batch)
        >>> entropy.compute().shape, entropy.higher_is_better
        (torch.Size([]), True)
    """

    is_differentiable = False
    full_state_update = False
    total: Tensor
    pictures: Tensor

    def __init__(self, name: str, *, convention: str = "cddfuse", **options: Any) -> None:
        super().__init__(**options)
        (self.name,) = check_metrics((name,))
        self.convention = check_convention(convention).name
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("pictures", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    @property
    def higher_is_better(self) -> bool:  # type: ignore[override]
        """Whether a higher value is better."""
        return METRICS[self.name].direction > 0

    def update(self, fused: Tensor, infrared: Tensor, visible: Tensor) -> None:
        """Count a batch.

        Args:
            fused: ``(B, 1, H, W)``, ``uint8`` gray levels or float in [0, 1].
            infrared: As ``fused``.
            visible: As ``fused``.
        """
        scores = evaluate(fused, infrared, visible, metrics=(self.name,), convention=self.convention)[self.name]
        self.total += scores.sum()
        self.pictures += len(scores)

    def compute(self) -> Tensor:
        """Return the mean, a float64 scalar; NaN before the first picture."""
        return self.total / self.pictures
