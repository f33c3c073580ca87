from __future__ import annotations

import pytest
import torch

from fusionblocks.blocks import InvertedResidual
from fusionblocks.models.smfnet import checkpoint as smfnet
from tests.helpers.block_tester import BlockTester


class TestInvertedResidual(BlockTester):
    golden = "smf_inverted_residual"
    layout = smfnet
    golden_options = {"in_channels": 32}
    variants = [{"in_channels": 32}, {"in_channels": 5, "out_channels": 9, "expand_ratio": 1.5}]
    sizes = [(1, 11, 13), (3, 8, 17), (2, 1, 6), (1, 1, 1)]

    def build(self, **options):
        return InvertedResidual(**options)

    def inputs(self, options, batch, height, width):
        return {"x": torch.randn(batch, options["in_channels"], height, width)}


def test_the_border_of_a_constant_map_is_no_edge():
    torch.manual_seed(0)
    block = InvertedResidual(4, 3)
    for parameter in block.parameters():  # positive weights keep the map off zero
        parameter.data.abs_()
    for height, width in ((6, 7), (1, 7), (1, 1)):
        out = block(torch.ones(1, 4, 1, 1).expand(-1, -1, height, width))
        torch.testing.assert_close(out, out[..., :1, :1].expand_as(out))
        assert out.abs().max() > 0


def test_wrong_arguments_are_refused_by_name():
    with pytest.raises(ValueError, match="expand_ratio"):
        InvertedResidual(4, expand_ratio=0.1)
    with pytest.raises(ValueError, match="out_channels"):
        InvertedResidual(4, 0)
