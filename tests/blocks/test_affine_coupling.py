from __future__ import annotations

import math

import pytest
import torch

from fusionblocks.blocks import AffineCoupling
from fusionblocks.models.smfnet import checkpoint as smfnet
from tests.helpers.block_tester import BlockTester
from tests.helpers.coupling import halves, round_trip_error, train


class TestAffineCoupling(BlockTester):
    golden = "smf_affine_coupling_rev"
    layout = smfnet
    golden_names = {"x1": "first", "x2": "second"}
    golden_options = {"channels": 64}
    variants = [{"channels": 64}, {"channels": 6, "clamp": 1.0, "expand_ratio": 3}]

    def build(self, **options):
        return AffineCoupling(**options)

    def inputs(self, options, batch, height, width):
        shape = (batch, options["channels"] // 2, height, width)
        return {"first": torch.randn(shape), "second": torch.randn(shape)}

    def split(self, result):
        return {"out0": result[0], "out1": result[1]}


class TestForwardCoupling(TestAffineCoupling):
    golden = "smf_affine_coupling_fwd"
    golden_options = {"channels": 64, "reverse": False}
    variants = [{"channels": 64, "reverse": False}]


@pytest.mark.parametrize("reverse", [True, False])
@pytest.mark.parametrize("channels", [64, 6])
def test_inverts_exactly_before_and_after_training(channels, reverse):
    torch.manual_seed(0)
    block = AffineCoupling(channels, reverse=reverse).double()
    inputs = halves(channels)
    assert round_trip_error(block, inputs) < 1e-9
    train(block, channels)
    assert round_trip_error(block, inputs) < 1e-9


def test_reverse_runs_the_coupling_backwards():
    torch.manual_seed(0)
    there, back = AffineCoupling(8, reverse=False).double(), AffineCoupling(8, reverse=True).double()
    back.load_state_dict(there.state_dict())
    for block in (there, back):  # without mixing the two directions undo each other
        torch.nn.init.dirac_(block.mix.weight)
        torch.nn.init.zeros_(block.mix.bias)
    inputs = halves(8)
    for out, x in zip(back(*there(*inputs)), inputs):
        torch.testing.assert_close(out, x, rtol=0, atol=1e-12)
    assert (there(*inputs)[0] - back(*inputs)[0]).abs().max() > 1e-3


def test_clamp_bounds_the_scale():
    gain = AffineCoupling(4, clamp=1.5)._gain(torch.tensor([-1e4, 0.0, 1e4]))
    torch.testing.assert_close(gain, torch.tensor([math.exp(-1.5), 1.0, math.exp(1.5)]))


def test_wrong_arguments_are_refused_by_name():
    with pytest.raises(ValueError, match=r"channels.*2.*got 7"):
        AffineCoupling(7)
    with pytest.raises(ValueError, match="first and second"):
        AffineCoupling(8)(torch.rand(1, 4, 5, 5), torch.rand(1, 4, 5, 6))
    with pytest.raises(ValueError, match="second"):
        AffineCoupling(8).inverse(torch.rand(1, 4, 5, 5), torch.rand(1, 3, 5, 5))
