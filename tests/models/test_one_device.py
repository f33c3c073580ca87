"""A forward pass stays on its device: it copies nothing there and waits for nothing, so that a graph can capture it."""

from __future__ import annotations

import pytest
import torch

import fusionblocks as fb
from tests.helpers.networks import NARROW, pair
from tests.helpers.one_device import staying_on

PREPARED = {
    "as made": lambda model: model,
    "optimized": fb.optimize,
    "bfloat16": lambda model: fb.optimize(model, torch.bfloat16),
    "float16": lambda model: fb.optimize(model, torch.float16, outputs=("fused",)),
}


# SGDFuse draws its noise on the CPU, where a seed gives the same for every device
@torch.no_grad()
@pytest.mark.parametrize("prepare", PREPARED.values(), ids=PREPARED)
@pytest.mark.parametrize("name", NARROW)
def test_networks(name: str, prepare) -> None:  # type: ignore[no-untyped-def]
    model = prepare(fb.create_model(name, **NARROW[name]).eval()).to("meta")
    inputs = {key: x.to("meta") for key, x in pair(name, 65, 50).items()}
    with staying_on("meta"):
        output = model(**inputs)
    assert output.fused.device.type == "meta"


@pytest.mark.parametrize(
    "make",
    [lambda x: torch.tensor([1.0], device=x.device), lambda x: torch.ones(2).to(x.device), lambda x: x.sum().item()],
)
def test_copies_and_reads_are_seen(make) -> None:  # type: ignore[no-untyped-def]
    x = torch.ones(2, device="meta")
    with pytest.raises(AssertionError, match="copies|meets tensors of cpu|reads a value"), staying_on("meta"):
        make(x)
