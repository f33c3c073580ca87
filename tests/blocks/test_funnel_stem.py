from __future__ import annotations

import pytest
import torch

from fusionblocks import FunnelStem
from fusionblocks.models.psfusion import checkpoint as psfusion
from tests.helpers.block_tester import BlockTester


class TestFunnelStem(BlockTester):
    golden = "psf_stem"
    layout = psfusion
    golden_options = {"in_channels": 3, "channels": 64}
    variants = [{"in_channels": 3, "channels": 16}, {"in_channels": 1, "channels": 6}]

    def build(self, **options):
        return FunnelStem(**options)

    def inputs(self, options, batch, height, width):
        return {"x": torch.rand(batch, options["in_channels"], height, width)}

    def split(self, result):
        full, half = result
        return {"full": full, "half": half}

    def test_half_resolution_rounds_up(self) -> None:
        block, inputs = self.make(size=(2, 11, 8))
        full, half = block(**inputs)
        assert full.shape == (2, 8, 11, 8)
        assert half.shape == (2, 16, 6, 4)

    def test_converts_to_half_precision(self) -> None:
        block, _ = self.make()
        assert {parameter.dtype for parameter in block.half().parameters()} == {torch.float16}


def test_refuses_wrong_widths() -> None:
    with pytest.raises(ValueError, match="in_channels"):
        FunnelStem(0, 16)
    with pytest.raises(ValueError, match="channels must be even, got 15"):
        FunnelStem(3, 15)
