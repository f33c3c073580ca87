"""Metrics over a stream of batches."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from fusionblocks.metrics.conventions import METRICS, check_convention, check_metrics, evaluate
from fusionblocks.metrics.table import MetricTable


class FusionEvaluator:
    """Collects metrics over a stream of batches and turns them into a table: mean, spread, per picture.

    It can be pickled, and evaluators of several workers can be merged.

    Args:
        metrics: Names out of ``METRICS``; ``None`` for all.
        convention: ``"cddfuse"``, ``"smfnet"``, ``"vifb"`` or ``"psfusion"``.

    Raises:
        ValueError: A metric or the convention is unknown; the message names the closest one.

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import FusionEvaluator
        >>> evaluator = FusionEvaluator(metrics=("EN", "CC"))
        >>> for _ in range(2):
        ...     fused, infrared, visible = torch.rand(3, 4, 1, 16, 16)
        ...     evaluator.update(fused, infrared, visible)
        >>> table = evaluator.compute()
        >>> len(table), table.metrics
        (8, ('EN', 'CC'))
    """

    def __init__(self, *, metrics: Sequence[str] | None = None, convention: str = "cddfuse") -> None:
        check_convention(convention)
        self.metrics = tuple(METRICS) if metrics is None else check_metrics(metrics)
        self.convention = convention
        self.reset()

    def reset(self) -> None:
        """Forget all pictures."""
        self._names: list[str | None] = []
        self._values: list[Tensor] = []

    def __len__(self) -> int:
        """Return the number of pictures so far."""
        return len(self._names)

    def update(self, fused: Tensor, infrared: Tensor, visible: Tensor, names: Sequence[str] | None = None) -> None:
        """Evaluate a batch; on an error nothing of it is kept.

        Args:
            fused: ``(B, 1, H, W)``, ``uint8`` gray levels or float in [0, 1].
            infrared: As ``fused``.
            visible: As ``fused``.
            names: One name per picture, each once in all; without names the pictures are numbered.

        Raises:
            TypeError: A picture is not a tensor or has an unfit dtype.
            ValueError: A picture has an unfit shape or values, or a name is missing, surplus or there already.
        """
        given: Sequence[str | None] | None = (names,) if isinstance(names, str) else names
        with torch.no_grad():
            scores = evaluate(fused, infrared, visible, self.metrics, self.convention)
            values = torch.stack(list(scores.values()), 1).cpu()
        if given is None:
            given = [None] * len(values)
        if len(given) != len(values):
            raise ValueError(f"names must hold one name per picture, {len(values)}, got {len(given)}")
        self._extend(given, [values])

    def merge(self, *others: FusionEvaluator) -> None:
        """Take over the pictures of other evaluators, in order, for instance those of several workers.

        Raises:
            ValueError: Another one has other metrics or another convention, or a picture's name is there already (a
                distributed sampler that repeats pictures to fill a batch would else count them twice).
        """
        for other in others:
            if (other.metrics, other.convention) != (self.metrics, self.convention):
                raise ValueError(
                    f"evaluators to merge must have the same metrics and convention, got {', '.join(self.metrics)} "
                    f"({self.convention}) and {', '.join(other.metrics)} ({other.convention})"
                )
        names = [name for other in others for name in other._names]
        self._extend(names, [values for other in others for values in other._values])

    def compute(self) -> MetricTable:
        """Return the table of all pictures so far.

        It warns (``RuntimeWarning``) of values that are not finite, as the PSNR of a result that equals both sources,
        since they turn a mean into infinity or NaN.

        Raises:
            ValueError: No picture was evaluated yet.
        """
        if not self._values:
            raise ValueError("there is nothing to compute: no picture was evaluated yet, call update first")
        names = tuple(str(index) if name is None else name for index, name in enumerate(self._names))
        values = torch.cat(self._values)
        for column, metric in enumerate(self.metrics):
            wrong = [name for name, value in zip(names, values[:, column]) if not torch.isfinite(value)]
            if wrong:
                some = ", ".join(wrong[:3]) + (", ..." if len(wrong) > 3 else "")
                warnings.warn(
                    f"{metric} is not finite for {len(wrong)} of {len(names)} pictures ({some}), nor is its mean",
                    RuntimeWarning,
                    stacklevel=2,
                )
        return MetricTable(names, self.metrics, values, self.convention)

    def _extend(self, names: Sequence[str | None], values: Sequence[Tensor]) -> None:
        seen = {name for name in self._names if name is not None}
        for name in names:
            if name in seen:
                raise ValueError(f"names must be given once each, {name!r} was evaluated already")
            if name is not None:
                seen.add(name)
        self._names.extend(names)
        self._values.extend(values)
