from __future__ import annotations

import pytest
import torch

from fusionblocks.blocks import GradientResidualDense
from fusionblocks.models.smfnet import checkpoint as smfnet
from tests.helpers.block_tester import BlockTester


class TestGradientResidualDense(BlockTester):
    golden = "smf_grdb"
    layout = smfnet
    golden_options = {"channels": 64}
    variants = [{"channels": 64}, {"channels": 5}]

    def build(self, **options):
        return GradientResidualDense(**options)

    def inputs(self, options, batch, height, width):
        return {"x": torch.randn(batch, options["channels"], height, width)}


def test_the_gradient_starts_as_sobel_and_is_trained():
    block = GradientResidualDense(3)
    ramp = torch.arange(7.0).expand(1, 3, 5, 7)
    inner = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(block.sobel_x(ramp)[inner].abs(), torch.full((1, 3, 3, 5), 8.0))
    torch.testing.assert_close(block.sobel_y(ramp)[inner], torch.zeros(1, 3, 3, 5))
    torch.testing.assert_close(block.sobel_y(ramp.mT)[(..., slice(1, -1), slice(1, -1))].abs().max(), torch.tensor(8.0))
    block(torch.randn(1, 3, 6, 6)).sum().backward()
    assert block.sobel_x.weight.grad.abs().max() > 0
    assert block.sobel_y.weight.grad.abs().max() > 0


def test_wrong_arguments_are_refused_by_name():
    with pytest.raises(ValueError, match="channels"):
        GradientResidualDense(0)
