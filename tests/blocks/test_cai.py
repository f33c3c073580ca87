from __future__ import annotations

import pytest
import torch

from fusionblocks.blocks import CAI, DetailNode
from fusionblocks.models.smfnet import checkpoint as smfnet
from tests.helpers.block_tester import BlockTester
from tests.helpers.coupling import halves, round_trip_error, train


class TestCAI(BlockTester):
    golden = "smf_cai"
    layout = smfnet
    golden_options = {"channels": 64}
    variants = [{"channels": 64}, {"channels": 12, "num_heads": 3, "expand_ratio": 1}]

    def build(self, **options):
        return CAI(**options)

    def inputs(self, options, batch, height, width):
        return {"x": torch.randn(batch, options["channels"], height, width)}


class TestDetailNode(BlockTester):
    golden = "smf_detail_node"
    layout = smfnet
    golden_names = {"z1": "first", "z2": "second"}
    golden_options = {"channels": 64}
    variants = [{"channels": 64}, {"channels": 6, "expand_ratio": 3}]

    def build(self, **options):
        return DetailNode(**options)

    def inputs(self, options, batch, height, width):
        shape = (batch, options["channels"] // 2, height, width)
        return {"first": torch.randn(shape), "second": torch.randn(shape)}

    def split(self, result):
        return {"out0": result[0], "out1": result[1]}


@pytest.mark.parametrize("channels", [64, 6])
def test_the_coupling_inverts_exactly_before_and_after_training(channels):
    torch.manual_seed(0)
    node = DetailNode(channels).double()
    inputs = halves(channels)
    assert round_trip_error(node, inputs) < 1e-9
    train(node, channels)
    assert round_trip_error(node, inputs) < 1e-9


def test_the_coupling_inside_cai_inverts_exactly_after_training():
    torch.manual_seed(0)
    cai = CAI(16, num_heads=4).double()
    optimizer = torch.optim.Adam(cai.parameters(), lr=2e-2)
    x, target = torch.randn(2, 2, 16, 9, 12, dtype=torch.float64)
    for _ in range(8):
        optimizer.zero_grad()
        (cai(x) - target).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        restored = torch.cat(cai.coupling.inverse(*cai(x).chunk(2, dim=1)), dim=1)
        first, second = x.chunk(2, dim=1)
        guided = torch.cat([cai.attention(second, first), cai.attention(first, second)], dim=1)
    assert (restored - guided).abs().max() < 1e-9


def test_both_directions_share_one_attention():
    torch.manual_seed(0)
    cai = CAI(8, num_heads=2)
    calls = []
    cai.attention.register_forward_hook(lambda *_: calls.append(1))
    cai(torch.randn(1, 8, 5, 6))
    assert len(calls) == 2


def test_wrong_arguments_are_refused_by_name():
    with pytest.raises(ValueError, match=r"channels.*num_heads.*got 8"):
        CAI(8)
    with pytest.raises(ValueError, match="channels"):
        DetailNode(5)
