from __future__ import annotations

import pytest
import torch
from einops import rearrange

from fusionblocks import PSFM, DualCrossAttention
from fusionblocks.models.psfusion import checkpoint as psfusion
from tests.helpers.block_tester import BlockTester


class TestDualCrossAttention(BlockTester):
    golden = "psf_gefm"
    layout = psfusion
    golden_options = {"channels": 64}
    variants = [{"channels": 8}, {"channels": 6, "num_heads": 3, "scale": 0.5}]

    def build(self, **options):
        return DualCrossAttention(**options)

    def inputs(self, options, batch, height, width):
        shape = (batch, options["channels"], height, width)
        return {"infrared": torch.randn(shape), "visible": torch.randn(shape)}

    def test_gains_start_at_zero(self) -> None:
        block, (infrared, visible) = DualCrossAttention(8).eval(), torch.randn(2, 2, 8, 5, 7)
        assert torch.equal(block(infrared, visible), block.merge(torch.cat([infrared, visible], dim=1)))

    def test_each_modality_refines_the_other(self) -> None:
        block, inputs = self.make(variant=1)
        with torch.no_grad():
            block.infrared_gain.zero_()
        maps = (block.visible_query(inputs["visible"]), block.visible_value(inputs["visible"]))
        key = block.shared_key(torch.cat([inputs["visible"], inputs["infrared"]], dim=1))
        query, value, key = (rearrange(x, "b (n c) h w -> b n (h w) c", n=3) for x in (*maps, key))
        gathered = torch.softmax(0.5 * query @ key.mT, dim=-1) @ value
        refined = inputs["infrared"] + block.visible_gain * rearrange(gathered, "b n (h w) c -> b (n c) h w", h=11)
        expected = block.merge(torch.cat([refined, inputs["visible"]], dim=1))
        torch.testing.assert_close(block(**inputs), expected, rtol=1e-4, atol=1e-5)


class TestPSFM(BlockTester):
    golden = "psf_psfm"
    layout = psfusion
    golden_options = {"in_channels": 128, "out_channels": 64}
    variants = [
        {"in_channels": 12, "out_channels": 8},
        {"in_channels": 5, "out_channels": 6, "reduction": 3, "depth": 2, "num_heads": 2},
    ]

    def build(self, **options):
        return PSFM(**options)

    def inputs(self, options, batch, height, width):
        shape = (batch, options["in_channels"], height, width)
        return {"infrared": torch.randn(shape), "visible": torch.randn(shape)}


def test_refuses_wrong_widths() -> None:
    with pytest.raises(ValueError, match="channels must be a multiple of num_heads=3, got 8"):
        DualCrossAttention(8, num_heads=3)
    with pytest.raises(ValueError, match="out_channels must be a multiple of reduction=4, got 6"):
        PSFM(8, 6)
