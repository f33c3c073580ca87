from __future__ import annotations

import pytest
import torch

from fusionblocks import S2PM
from fusionblocks.models.psfusion import checkpoint as psfusion
from tests.helpers.block_tester import BlockTester


class TestS2PM(BlockTester):
    golden = "psf_s2pm"
    layout = psfusion
    golden_options = {"in_channels": 256, "channels": 64}
    variants = [{"in_channels": 12, "channels": 8}, {"in_channels": 5, "channels": 3}]

    def build(self, **options):
        return S2PM(**options)

    def inputs(self, options, batch, height, width):
        return {"x": torch.randn(batch, options["in_channels"], height, width)}


def test_refuses_wrong_widths() -> None:
    with pytest.raises(ValueError, match="in_channels"):
        S2PM(0, 8)
    with pytest.raises(ValueError, match="channels"):
        S2PM(8, 0)
