from __future__ import annotations

import pytest
import torch

from fusionblocks import S2P2
from fusionblocks.models.psfusion import checkpoint as psfusion
from tests.helpers.block_tester import BlockTester


class TestS2P2(BlockTester):
    golden = "psf_s2p2"
    layout = psfusion
    golden_options = {"channels": 64}
    variants = [{"channels": 16}, {"channels": 4, "num_classes": 3}]

    def build(self, **options):
        return S2P2(**options)

    def inputs(self, options, batch, height, width):
        return {"x": torch.randn(batch, options["channels"], height, width)}

    def split(self, result):
        segmentation, binary, boundary = result
        return {"segmentation": segmentation, "binary": binary, "boundary": boundary}

    def test_is_finite_for_large_logits(self) -> None:
        block, inputs = self.make()
        with torch.no_grad():
            block.binary[1].weight.mul_(1e6)
        for out in block(**inputs):
            assert torch.isfinite(out).all()

    def test_upsamples_four_times(self) -> None:
        block, inputs = self.make(variant=1)
        assert [tuple(out.shape) for out in block(**inputs)] == [(1, 3, 44, 52), (1, 2, 44, 52), (1, 2, 44, 52)]


def test_refuses_wrong_sizes() -> None:
    with pytest.raises(ValueError, match="channels must be a multiple of .*4, got 6"):
        S2P2(6)
    with pytest.raises(ValueError, match="num_classes"):
        S2P2(8, num_classes=0)
