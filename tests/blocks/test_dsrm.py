from __future__ import annotations

import pytest
import torch

from fusionblocks import DSRM
from fusionblocks.models.psfusion import checkpoint as psfusion
from tests.helpers.block_tester import BlockTester


class TestDSRM(BlockTester):
    golden = "psf_dsrm"
    layout = psfusion
    golden_options = {"channels": 32}
    variants = [{"channels": 8}, {"channels": 3, "depth": 2}]

    def build(self, **options):
        return DSRM(**options)

    def inputs(self, options, batch, height, width):
        return {"x": torch.randn(batch, options["channels"], height, width)}


def test_refuses_wrong_sizes() -> None:
    with pytest.raises(ValueError, match="channels"):
        DSRM(0)
    with pytest.raises(ValueError, match="depth"):
        DSRM(8, depth=0)
