from __future__ import annotations

import pytest
import torch

from fusionblocks.blocks import GlobalRefinement
from fusionblocks.models.smfnet import checkpoint as smfnet
from tests.helpers.block_tester import BlockTester


class TestGlobalRefinement(BlockTester):
    golden = "smf_global_refinement"
    layout = smfnet
    golden_options = {"channels": 64}
    variants = [{"channels": 64}, {"channels": 5}]

    def build(self, **options):
        return GlobalRefinement(**options)

    def inputs(self, options, batch, height, width):
        shape = (batch, options["channels"], height, width)
        return {name: torch.randn(shape) for name in ("detail", "base", "graph")}


def test_the_shift_needs_no_graph_features():
    torch.manual_seed(0)
    block = GlobalRefinement(4).eval()
    detail, base, graph = torch.randn(3, 1, 4, 5, 6)
    torch.nn.init.zeros_(block.modulate[0].weight)
    torch.nn.init.zeros_(block.modulate[0].bias)
    torch.testing.assert_close(block(detail, base, graph), block.shift(torch.cat([detail, base], dim=1)))


def test_wrong_arguments_are_refused_by_name():
    with pytest.raises(ValueError, match="channels"):
        GlobalRefinement(0)
    with pytest.raises(ValueError, match="detail and graph"):
        GlobalRefinement(4)(torch.rand(1, 4, 5, 5), torch.rand(1, 4, 5, 5), torch.rand(1, 4, 5, 6))
