from __future__ import annotations

import pytest
import torch

from fusionblocks import ImageHead, SceneFidelityPath, SceneMask
from fusionblocks.models.psfusion import checkpoint as psfusion
from tests.helpers.block_tester import BlockTester


class TestSceneMask(BlockTester):
    golden = "psf_scene_mask"
    layout = psfusion
    golden_options = {"channels": 32}
    variants = [{"channels": 8}, {"channels": 6, "reduction": 3}]

    def build(self, **options):
        return SceneMask(**options)

    def inputs(self, options, batch, height, width):
        return {"x": torch.randn(batch, options["channels"], height, width)}


class TestImageHead(BlockTester):
    variants = [{"channels": 8}, {"channels": 5, "out_channels": 3}]

    def build(self, **options):
        return ImageHead(**options)

    def inputs(self, options, batch, height, width):
        return {"x": torch.randn(batch, options["channels"], height, width)}

    def test_gives_a_picture(self) -> None:
        block, inputs = self.make(variant=1)
        out = block(x=100 * inputs["x"])
        assert out.shape == (1, 3, 11, 13)
        assert out.min() >= 0
        assert out.max() <= 1
        flat = block(x=torch.zeros_like(inputs["x"]))
        torch.testing.assert_close(flat, ((torch.tanh(block.conv.bias) + 1) / 2)[:, None, None].expand_as(flat))


class TestSceneFidelityPath(BlockTester):
    golden = "psf_scene_fidelity"
    layout = psfusion
    golden_options = {"channels": 32}
    variants = [{"channels": 8}, {"channels": 6, "out_channels": 3, "reduction": 2}]

    def build(self, **options):
        return SceneFidelityPath(**options)

    def inputs(self, options, batch, height, width):
        return {"x": torch.randn(batch, options["channels"], height, width)}


def test_refuses_wrong_widths() -> None:
    with pytest.raises(ValueError, match="channels must be a multiple of reduction=4, got 6"):
        SceneMask(6)
    with pytest.raises(ValueError, match="channels must be a multiple of reduction=4, got 6"):
        SceneFidelityPath(6)
    with pytest.raises(ValueError, match="out_channels"):
        ImageHead(8, 0)
