from __future__ import annotations

import pytest
import torch

from fusionblocks import SDFM, AdaptiveFusion
from fusionblocks.models.psfusion import checkpoint as psfusion
from tests.helpers.block_tester import BlockTester


class TestAdaptiveFusion(BlockTester):
    golden = "psf_fusion_module"
    layout = psfusion
    golden_options = {"channels": 64}
    variants = [{"channels": 16}, {"channels": 6, "reduction": 3}]

    def build(self, **options):
        return AdaptiveFusion(**options)

    def inputs(self, options, batch, height, width):
        shape = (batch, options["channels"], height, width)
        return {"infrared": torch.randn(shape), "visible": torch.randn(shape)}

    def test_mixes_between_the_recalibrated_modalities(self) -> None:
        block, inputs = self.make()
        pair = torch.cat([inputs["visible"], inputs["infrared"]], dim=1)
        visible, infrared = (pair * (1 + torch.sigmoid(block.recalibration(pair)))).chunk(2, dim=1)
        out = block(**inputs)
        assert (out >= torch.minimum(visible, infrared) - 1e-5).all()
        assert (out <= torch.maximum(visible, infrared) + 1e-5).all()

    def test_names_inputs_that_differ(self) -> None:
        block, inputs = self.make()
        with pytest.raises(ValueError, match=r"infrared and visible.*\(1, 16, 11, 13\) and \(1, 16, 11, 12\)"):
            block(**{**inputs, "visible": inputs["visible"][..., :-1]})


class TestSDFM(BlockTester):
    golden = "psf_sdfm"
    layout = psfusion
    golden_options = {"in_channels": 64, "out_channels": 32}
    variants = [{"in_channels": 12, "out_channels": 8}, {"in_channels": 5, "out_channels": 6, "reduction": 2}]

    def build(self, **options):
        return SDFM(**options)

    def inputs(self, options, batch, height, width):
        shape = (batch, options["in_channels"], height, width)
        return {"infrared": torch.randn(shape), "visible": torch.randn(shape)}


def test_refuses_wrong_widths() -> None:
    with pytest.raises(ValueError, match="channels must be a multiple of reduction=4, got 6"):
        AdaptiveFusion(6)
    with pytest.raises(ValueError, match="out_channels must be a multiple of reduction=4, got 6"):
        SDFM(8, 6)
    with pytest.raises(ValueError, match="in_channels"):
        SDFM(0, 8)
