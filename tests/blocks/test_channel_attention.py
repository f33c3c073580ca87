from __future__ import annotations

import pytest
import torch

from fusionblocks.blocks import ChannelAttention, CrossChannelAttention
from fusionblocks.models.smfnet import checkpoint as smfnet
from tests.helpers.block_tester import BlockTester


class TestChannelAttention(BlockTester):
    golden = "smf_mdta"
    layout = smfnet
    golden_options = {"channels": 64}
    variants = [
        {"channels": 64},
        {"channels": 12, "num_heads": 3, "bias": True},
        {"channels": 10, "num_heads": 1, "depthwise": False},
    ]

    def build(self, **options):
        return ChannelAttention(**options)

    def inputs(self, options, batch, height, width):
        return {"x": torch.randn(batch, options["channels"], height, width)}


class TestDenseChannelAttention(TestChannelAttention):
    golden = None  # part of the golden case of BaseFeatureExtraction
    variants = [{"channels": 16, "num_heads": 4, "depthwise": False}]


class TestCrossChannelAttention(BlockTester):
    golden = "smf_cross_channel_attention"
    layout = smfnet
    golden_options = {"channels": 32}
    variants = [{"channels": 32}, {"channels": 12, "num_heads": 3, "bias": False}, {"channels": 5, "num_heads": 1}]

    def build(self, **options):
        return CrossChannelAttention(**options)

    def inputs(self, options, batch, height, width):
        shape = (batch, options["channels"], height, width)
        return {"guide": torch.randn(shape), "value": torch.randn(shape)}


def test_dense_mixing_with_a_diagonal_kernel_is_depthwise():
    torch.manual_seed(0)
    depthwise = ChannelAttention(8, num_heads=2)
    dense = ChannelAttention(8, num_heads=2, depthwise=False)
    state = depthwise.state_dict()
    kernels = state["qkv_local.weight"][:, 0]  # (3 C, 3, 3)
    state["qkv_local.weight"] = torch.einsum("oxy,oi->oixy", kernels, torch.eye(24))
    dense.load_state_dict(state)
    x = torch.randn(2, 8, 7, 9)
    torch.testing.assert_close(dense(x), depthwise(x), rtol=1e-4, atol=1e-6)


def test_cross_attention_guided_by_itself_is_self_attention():
    torch.manual_seed(0)
    self_attention, cross = ChannelAttention(8, num_heads=2, bias=True), CrossChannelAttention(8, num_heads=2)
    state = self_attention.state_dict()
    for ours, theirs in (("", "qkv"), ("_local", "qkv_local")):
        for leaf in ("weight", "bias"):
            query, key_value = state.pop(f"{theirs}.{leaf}").split([8, 16])
            state |= {f"query{ours}.{leaf}": query, f"key_value{ours}.{leaf}": key_value}
    cross.load_state_dict(state)
    x = torch.randn(2, 8, 7, 9)
    torch.testing.assert_close(cross(x, x), self_attention(x), rtol=1e-4, atol=1e-6)


def test_wrong_arguments_are_refused_by_name():
    for block in (ChannelAttention, CrossChannelAttention):
        with pytest.raises(ValueError, match=r"channels.*num_heads=3.*got 8"):
            block(8, num_heads=3)
        with pytest.raises(ValueError, match="num_heads"):
            block(8, num_heads=0)
    with pytest.raises(ValueError, match=r"guide and value.*\(1, 8, 4, 5\).*\(1, 8, 4, 4\)"):
        CrossChannelAttention(8)(torch.rand(1, 8, 4, 5), torch.rand(1, 8, 4, 4))
