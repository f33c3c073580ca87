from __future__ import annotations

import pytest
import torch
from torch import nn

from fusionblocks.blocks import DegradationExperts, MixtureOfExperts, UniNet
from fusionblocks.models.sgafusion import checkpoint as sgafusion
from tests.helpers.block_tester import BlockTester


class TestMixtureOfExperts(BlockTester):
    golden = "sga_moe"
    layout = sgafusion
    golden_options = {"channels": 64}
    variants = [
        {"channels": 64},
        {"channels": 6, "num_experts": 3},
        {"channels": 10, "reduction": 3, "negative_slope": 0.0},
    ]

    def build(self, **options):
        return MixtureOfExperts(**options)

    def inputs(self, options, batch, height, width):
        return {"x": torch.randn(batch, options["channels"], height, width)}


class TestUniNet(BlockTester):
    variants = [{"channels": 16}, {"channels": 3}, {"channels": 12, "reduction": 2}]

    def build(self, **options):
        return UniNet(**options)

    def inputs(self, options, batch, height, width):
        return {"x": torch.randn(batch, options["channels"], height, width)}


def test_the_gate_sums_to_one_and_tells_the_experts_apart():
    torch.manual_seed(0)
    mixture, x = MixtureOfExperts(8, num_experts=3), torch.randn(2, 8, 5, 7)
    gate = mixture.gate(x)
    assert gate.shape == (2, 3, 5, 7)
    torch.testing.assert_close(gate.sum(1), torch.ones(2, 5, 7))
    assert gate.std() > 0.01


def test_given_experts_are_mixed_by_the_gate():
    torch.manual_seed(0)
    mixture = MixtureOfExperts(8, negative_slope=1.0, experts=[nn.Identity(), nn.Conv2d(8, 8, 1)])
    x = torch.randn(2, 8, 5, 7)
    gate = mixture.gate(x)
    expected = gate[:, :1] * x + gate[:, 1:] * mixture.experts[1](x)
    torch.testing.assert_close(mixture(x), expected)


def test_a_decided_gate_lets_one_expert_through():
    mixture = MixtureOfExperts(8, num_experts=2)
    with torch.no_grad():
        mixture.gating.weight.zero_()
        mixture.gating.bias.copy_(torch.tensor([-200.0, 200.0]))
    x = torch.randn(1, 8, 5, 7)
    torch.testing.assert_close(mixture(x), mixture.act(mixture.experts[1](x)))


def test_wrong_arguments_are_refused_by_name():
    for options in ({"channels": 0}, {"channels": 8, "num_experts": 0}, {"channels": 8, "reduction": 1.5}):
        with pytest.raises(ValueError, match=list(options)[-1]):
            MixtureOfExperts(**options)
    with pytest.raises(ValueError, match="experts"):
        MixtureOfExperts(8, experts=[])
    with pytest.raises(ValueError, match="names must hold one name for each of 2 experts, got 1"):
        MixtureOfExperts(8, names=["lonely"])


def test_experts_have_names():
    assert MixtureOfExperts(8, num_experts=3).names == ("expert 1", "expert 2", "expert 3")
    assert MixtureOfExperts(8, experts=[nn.Identity()], names=["keep"]).names == ("keep",)
    assert DegradationExperts(8, pool_size=4).names == ("dehaze", "low light", "base")
