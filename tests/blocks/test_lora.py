from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from fusionblocks.blocks import LoRALinear
from fusionblocks.models.sgafusion import checkpoint as sgafusion
from tests.helpers.block_tester import BlockTester


class TestLoRALinear(BlockTester):
    golden = "sga_lora_linear"
    layout = sgafusion
    # the published forward pass has no factor
    golden_options = {"in_features": 24, "out_features": 16, "rank": 4, "alpha": 4.0}
    variants = [
        {"in_features": 24, "out_features": 16, "freeze": False},
        {"in_features": 7, "out_features": 5, "rank": 2, "alpha": 8.0, "bias": False},
    ]

    def build(self, **options):
        return LoRALinear(**options)

    def inputs(self, options, batch, height, width):
        return {"x": torch.randn(batch, height, options["in_features"])}


@pytest.mark.parametrize("bias", [True, False])
def test_it_starts_as_the_linear_layer_and_trains_the_update_alone(bias):
    torch.manual_seed(0)
    linear = nn.Linear(6, 5, bias=bias)
    layer, x = LoRALinear.from_linear(linear, rank=2), torch.randn(4, 6)
    assert torch.equal(layer(x), linear(x))
    optimizer = torch.optim.SGD([p for p in layer.parameters() if p.requires_grad], lr=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        layer(x).square().sum().backward()
        optimizer.step()
    assert {name for name, p in layer.named_parameters() if p.grad is not None} == {"down", "up"}
    assert torch.equal(layer.linear.weight, linear.weight)
    assert (layer(x) - linear(x)).abs().max() > 1e-2


@pytest.mark.parametrize("bias", [True, False])
def test_merged_computes_the_same(bias):
    torch.manual_seed(0)
    layer, x = LoRALinear(24, 16, rank=3, alpha=6.0, bias=bias), torch.randn(7, 24)
    nn.init.normal_(layer.up)
    before = copy.deepcopy(layer.state_dict())
    merged = layer.merged()
    assert type(merged) is nn.Linear
    torch.testing.assert_close(merged(x), layer(x), rtol=1e-6, atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    assert merged.weight.data_ptr() != layer.linear.weight.data_ptr()


def test_the_scale_is_alpha_over_rank():
    layer = LoRALinear(3, 3, rank=2, alpha=5.0)
    with torch.no_grad():
        layer.linear.weight.zero_()
        layer.linear.bias.zero_()
        layer.down.copy_(torch.tensor([[1.0, 0, 0], [0, 0, 0]]))
        layer.up.copy_(torch.tensor([[0.0, 0], [1, 0], [0, 0]]))
    torch.testing.assert_close(layer(torch.tensor([2.0, 3.0, 4.0])), torch.tensor([0.0, 5.0, 0.0]))


def test_from_linear_keeps_the_dtype():
    layer = LoRALinear.from_linear(nn.Linear(4, 4, dtype=torch.float64))
    assert {p.dtype for p in layer.parameters()} == {torch.float64}
    assert layer.merged().weight.dtype == torch.float64


def test_wrong_arguments_are_refused_by_name():
    with pytest.raises(ValueError, match="rank"):
        LoRALinear(4, 4, rank=0)
    with pytest.raises(TypeError, match="linear"):
        LoRALinear.from_linear(nn.Conv2d(4, 4, 1))
