from __future__ import annotations

import pytest
import torch

from fusionblocks.metrics import METRICS, evaluate

pytest.importorskip("torchmetrics")
from torchmetrics import MetricCollection  # noqa: E402

from fusionblocks.metrics import FusionMetric  # noqa: E402


def batch(seed: int, count: int = 2) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(count, 1, 176, 180, generator=generator) for _ in range(3))


def test_the_mean_over_batches_is_that_of_all_pictures() -> None:
    names = ("EN", "VIF", "Qabf", "MSE")
    collection = MetricCollection({name: FusionMetric(name, convention="vifb") for name in names})
    first, second = batch(0), batch(1, count=3)
    collection.update(*first)
    collection.update(*second)
    together = evaluate(*(torch.cat(pair) for pair in zip(first, second, strict=True)), names, convention="vifb")
    for name, mean in collection.compute().items():
        torch.testing.assert_close(mean, together[name].mean())
    assert not collection["MSE"].higher_is_better
    assert collection["VIF"].higher_is_better


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_a_module(name: str) -> None:
    metric = FusionMetric(name)
    value = metric(*batch(2, count=1))
    assert torch.isfinite(value)
    metric.reset()
    assert torch.isnan(metric.compute())


def test_parts_of_two_processes_are_added() -> None:
    parts = [FusionMetric("SD") for _ in range(2)]
    for seed, part in enumerate(parts):
        part.update(*batch(seed))
    # what torchmetrics does with the states of all processes
    total = sum(part.metric_state["total"] for part in parts)
    pictures = sum(part.metric_state["pictures"] for part in parts)
    whole = FusionMetric("SD")
    for seed in range(2):
        whole.update(*batch(seed))
    torch.testing.assert_close(total / pictures, whole.compute())
    assert parts[0]._reductions["total"] is parts[0]._reductions["pictures"]


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown metric 'VFI', did you mean 'VIF'"):
        FusionMetric("VFI")
    with pytest.raises(ValueError, match="unknown convention"):
        FusionMetric("EN", convention="mine")
