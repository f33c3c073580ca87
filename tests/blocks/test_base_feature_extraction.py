from __future__ import annotations

import pytest
import torch

from fusionblocks.blocks import BaseFeatureExtraction, ResidualTransformerGroup
from fusionblocks.models.smfnet import checkpoint as smfnet
from tests.helpers.block_tester import BlockTester


class TestBaseFeatureExtraction(BlockTester):
    golden = "smf_bfe"
    layout = smfnet
    golden_options = {"channels": 64}
    variants = [
        {"channels": 16, "num_heads": 4, "num_layers": 2, "depth": 1},
        {"channels": 12, "num_heads": 3, "num_layers": 1, "depth": 3},
        {"channels": 64},
    ]

    def build(self, **options):
        return BaseFeatureExtraction(**options)

    def inputs(self, options, batch, height, width):
        return {"x": torch.randn(batch, options["channels"], height, width)}


class TestResidualTransformerGroup(TestBaseFeatureExtraction):
    golden = None  # part of the golden case of BaseFeatureExtraction
    variants = [{"channels": 16, "num_heads": 4, "depth": 1}]

    def build(self, **options):
        return ResidualTransformerGroup(**options)


def test_a_group_whose_bottleneck_ends_in_zeros_is_the_identity():
    group, x = ResidualTransformerGroup(8, num_heads=2, depth=1), torch.randn(1, 8, 5, 4)
    torch.nn.init.zeros_(group.bottleneck[-1].weight)
    torch.nn.init.zeros_(group.bottleneck[-1].bias)
    torch.testing.assert_close(group(x), x, rtol=0, atol=0)


def test_pairs_alternate_depthwise_and_dense_attention():
    group = ResidualTransformerGroup(8, num_heads=2, depth=3)
    groups = [[block.attention.qkv_local.groups for block in pair] for pair in group.pairs]
    assert groups == [[24, 1]] * 3


def test_wrong_arguments_are_refused_by_name():
    with pytest.raises(ValueError, match=r"channels.*4.*got 6"):
        BaseFeatureExtraction(6, num_heads=2)
    with pytest.raises(ValueError, match="num_layers"):
        BaseFeatureExtraction(8, num_layers=0)
    with pytest.raises(ValueError, match="depth"):
        BaseFeatureExtraction(8, depth=0)
