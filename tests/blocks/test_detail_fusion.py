from __future__ import annotations

import pytest
import torch

from fusionblocks.blocks import DetailFusion
from fusionblocks.models.smfnet import checkpoint as smfnet
from tests.helpers.block_tester import BlockTester


class TestDetailFusion(BlockTester):
    golden = "smf_detail_fusion"
    layout = smfnet
    golden_options = {"channels": 64}
    variants = [{"channels": 64}, {"channels": 6, "num_layers": 3, "clamp": 1.0}]

    def build(self, **options):
        return DetailFusion(**options)

    def inputs(self, options, batch, height, width):
        return {"x": torch.randn(batch, options["channels"], height, width)}


def test_the_couplings_can_be_undone_one_by_one():
    torch.manual_seed(0)
    block = DetailFusion(12, num_layers=3).double()
    x = torch.randn(2, 12, 7, 9, dtype=torch.float64)
    with torch.no_grad():
        first, second = block(x).chunk(2, dim=1)
        for coupling in reversed(block.couplings):
            first, second = coupling.inverse(first, second)
        assert (torch.cat([first, second], dim=1) - block.gradient_dense(x)).abs().max() < 1e-9


def test_wrong_arguments_are_refused_by_name():
    with pytest.raises(ValueError, match="channels"):
        DetailFusion(5)
    with pytest.raises(ValueError, match="num_layers"):
        DetailFusion(6, num_layers=0)
