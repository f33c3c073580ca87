from __future__ import annotations

import pytest
import torch
from timm.layers import ConvMlp

from fusionblocks.blocks import LeFF, TransformerBlock
from fusionblocks.models.smfnet import checkpoint as smfnet
from tests.helpers.block_tester import BlockTester


class TestLeFF(BlockTester):
    golden = "smf_leff"
    layout = smfnet
    golden_options = {"channels": 64}
    variants = [{"channels": 64}, {"channels": 10, "hidden_channels": 7}]

    def build(self, **options):
        return LeFF(**options)

    def inputs(self, options, batch, height, width):
        return {"x": torch.randn(batch, options["channels"], height, width)}


class TestTransformerBlock(BlockTester):
    golden = "smf_transformer_block"
    layout = smfnet
    golden_options = {"channels": 64}
    variants = [{"channels": 64}, {"channels": 12, "num_heads": 3, "depthwise": False}]

    def build(self, **options):
        return TransformerBlock(**options)

    def inputs(self, options, batch, height, width):
        return {"x": torch.randn(batch, options["channels"], height, width)}


class TestBaseFusion(TestTransformerBlock):
    """The published ``BaseFeatureExtraction`` is the same block, with a convolution that it never uses."""

    golden = "smf_base_fusion"


class TestPlainFeedForward(TestTransformerBlock):
    golden = None  # part of the golden case of BaseFeatureExtraction
    variants = [{"channels": 16, "num_heads": 4, "depthwise": False}]

    def build(self, **options):
        return TransformerBlock(**options, feed_forward=ConvMlp(options["channels"], 2 * options["channels"]))


def test_the_given_feed_forward_is_used():
    torch.manual_seed(0)
    x = torch.randn(1, 8, 5, 6)
    feed_forward = torch.nn.Conv2d(8, 8, 1)
    block = TransformerBlock(8, num_heads=2, feed_forward=feed_forward)
    attended = x + block.attention(block.norm1(x))
    torch.testing.assert_close(block(x), attended + feed_forward(block.norm2(attended)))


def test_leff_whose_last_convolution_is_zero_is_the_identity():
    leff, x = LeFF(6), torch.randn(1, 6, 5, 4)
    torch.nn.init.zeros_(leff.reduce.weight)
    torch.nn.init.zeros_(leff.reduce.bias)
    torch.testing.assert_close(leff(x), x, rtol=0, atol=0)


def test_wrong_arguments_are_refused_by_name():
    with pytest.raises(ValueError, match="hidden_channels"):
        LeFF(8, hidden_channels=0)
    with pytest.raises(ValueError, match="num_heads=3"):
        TransformerBlock(8, num_heads=3)
