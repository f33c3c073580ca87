from __future__ import annotations

import pytest
import torch

from fusionblocks.blocks import ConvGRUCell
from fusionblocks.models.smfnet import checkpoint as smfnet
from tests.helpers.block_tester import BlockTester


class TestConvGRUCell(BlockTester):
    golden = "smf_convgru"
    layout = smfnet
    golden_names = {"input": "x"}
    golden_options = {"in_channels": 64}
    variants = [{"in_channels": 64}, {"in_channels": 3, "hidden_channels": 5, "kernel_size": 3}]

    def build(self, **options):
        return ConvGRUCell(**options)

    def inputs(self, options, batch, height, width):
        hidden = options.get("hidden_channels", options["in_channels"])
        return {
            "x": torch.randn(batch, options["in_channels"], height, width),
            "hidden": torch.randn(batch, hidden, height, width),
        }


def test_no_hidden_state_is_a_hidden_state_of_zeros():
    torch.manual_seed(0)
    cell, x = ConvGRUCell(4, 6), torch.randn(2, 4, 5, 3)
    assert torch.equal(cell(x), cell(x, torch.zeros(2, 6, 5, 3)))


@pytest.mark.parametrize(("bias", "kept"), [(-50.0, True), (50.0, False)])
def test_the_update_gate_keeps_or_replaces_the_state(bias, kept):
    torch.manual_seed(0)
    cell = ConvGRUCell(4)
    x, hidden = torch.randn(2, 1, 4, 5, 3).unbind()
    torch.nn.init.zeros_(cell.gates.weight)
    with torch.no_grad():  # reset gate wide open, update gate at one end
        cell.gates.bias.copy_(torch.tensor([50.0] * 4 + [bias] * 4))
    candidate = torch.tanh(cell.candidate(torch.cat([x, hidden], dim=1)))
    torch.testing.assert_close(cell(x, hidden), hidden if kept else candidate)


def test_wrong_arguments_are_refused_by_name():
    with pytest.raises(ValueError, match="kernel_size must be odd, got 2"):
        ConvGRUCell(4, kernel_size=2)
    with pytest.raises(ValueError, match="hidden_channels"):
        ConvGRUCell(4, 0)
    with pytest.raises(ValueError, match="x and hidden"):
        ConvGRUCell(4)(torch.rand(1, 4, 5, 5), torch.rand(1, 4, 5, 6))
