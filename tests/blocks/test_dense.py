from __future__ import annotations

import pytest
import torch

from fusionblocks import DenseLayer
from fusionblocks.models.psfusion import checkpoint as psfusion
from tests.helpers.block_tester import BlockTester


class TestDenseLayer(BlockTester):
    golden = "psf_dense"
    layout = psfusion
    golden_options = {"in_channels": 128, "out_channels": 64}
    variants = [
        {"in_channels": 12, "out_channels": 8},
        {"in_channels": 5, "out_channels": 6, "reduction": 2, "depth": 1},
    ]

    def build(self, **options):
        return DenseLayer(**options)

    def inputs(self, options, batch, height, width):
        return {"x": torch.randn(batch, options["in_channels"], height, width)}


def test_refuses_wrong_sizes() -> None:
    with pytest.raises(ValueError, match="out_channels must be a multiple of reduction=4, got 6"):
        DenseLayer(8, 6)
    with pytest.raises(ValueError, match="depth"):
        DenseLayer(8, 8, depth=0)
