from __future__ import annotations

import pytest
import torch
from torch import nn

from fusionblocks.blocks import CLIPQueryAttention
from fusionblocks.models.sgafusion import checkpoint as sgafusion
from tests.helpers.block_tester import BlockTester


class ClipQueryTester(BlockTester):
    tokens = None

    def build(self, **options):
        return CLIPQueryAttention(**options)

    def inputs(self, options, batch, height, width):
        width_of_token = options.get("semantic_channels", 512)
        shape = (batch, width_of_token) if self.tokens is None else (batch, self.tokens, width_of_token)
        return {
            "image": torch.randn(batch, options.get("channels", 128), height, width),
            "semantic": torch.randn(shape),
        }


class TestOneToken(ClipQueryTester):
    golden = "sga_clip_attention"
    layout = sgafusion
    variants = [{}, {"channels": 12, "semantic_channels": 20, "num_heads": 3}]


class TestManyTokens(ClipQueryTester):
    tokens = 5
    variants = [{"channels": 12, "semantic_channels": 20, "num_heads": 3}, {"channels": 6, "num_heads": 1}]


class TestSemanticQuery(ClipQueryTester):
    variants = [
        {"channels": 12, "semantic_channels": 20, "num_heads": 3, "query": "semantic"},
        {"channels": 6, "num_heads": 1, "query": "semantic"},
    ]


class TestManySemanticQueries(TestSemanticQuery):
    tokens = 5


def published_attention(block: CLIPQueryAttention) -> nn.MultiheadAttention:
    """The same weights in torch's own layer."""
    attention = nn.MultiheadAttention(block.channels, block.num_heads, batch_first=True).eval()
    with torch.no_grad():
        layers = (block.query, block.key, block.value)
        attention.in_proj_weight.copy_(torch.cat([layer.weight for layer in layers]))
        attention.in_proj_bias.copy_(torch.cat([layer.bias for layer in layers]))
        attention.out_proj.weight.copy_(block.out.weight)
        attention.out_proj.bias.copy_(block.out.bias)
    return attention


@pytest.mark.parametrize("query", ["image", "semantic"])
@pytest.mark.parametrize("tokens", [1, 2, 7])
def test_equals_multihead_attention(query, tokens):
    torch.manual_seed(0)
    block = CLIPQueryAttention(12, semantic_channels=20, num_heads=3, query=query).eval()
    attention = published_attention(block)
    image, semantic = torch.randn(2, 12, 5, 7), torch.randn(2, tokens, 20)
    projected = block.image_projection(image)
    pixels, answers = projected.flatten(2).mT, block.semantic_projection(semantic)
    if query == "image":
        answer = attention(pixels, answers, answers)[0].mT.unflatten(2, (5, 7))
    else:
        answer = attention(answers, pixels, pixels)[0].mean(1)[:, :, None, None]
    torch.testing.assert_close(block(image, semantic), projected + answer, rtol=1e-4, atol=1e-5)


def test_one_token_is_asked_once_and_its_query_gets_zero_gradients():
    torch.manual_seed(0)
    block = CLIPQueryAttention(12, semantic_channels=20)
    asked = []
    block.query.register_forward_hook(lambda module, inputs, output: asked.append(output.shape))
    image, semantic = torch.randn(2, 12, 5, 7), torch.randn(2, 20)
    block(image, semantic).square().sum().backward()
    assert asked == [(2, 1, 12)]
    for layer in (block.query, block.key):
        assert torch.count_nonzero(layer.weight.grad) == 0
        assert torch.count_nonzero(layer.bias.grad) == 0
    assert torch.count_nonzero(block.value.weight.grad) > 0


def test_one_token_given_twice_changes_nothing():
    torch.manual_seed(0)
    block = CLIPQueryAttention(12, semantic_channels=20).eval()
    image, semantic = torch.randn(2, 12, 5, 7), torch.randn(2, 20)
    once = block(image, semantic)
    twice = block(image, torch.stack([semantic, semantic], dim=1))
    torch.testing.assert_close(once, twice, rtol=1e-5, atol=1e-5)


def test_wrong_arguments_are_refused_by_name():
    with pytest.raises(ValueError, match="num_heads"):
        CLIPQueryAttention(10, num_heads=3)
    with pytest.raises(ValueError, match="query"):
        CLIPQueryAttention(8, query="text")
    with pytest.raises(ValueError, match="semantic_channels"):
        CLIPQueryAttention(8, semantic_channels=0)
    block, image = CLIPQueryAttention(8, semantic_channels=6), torch.rand(2, 8, 4, 4)
    for semantic in (torch.rand(3, 6), torch.rand(2, 5), torch.rand(2, 0, 6), torch.rand(2, 1, 1, 6)):
        with pytest.raises(ValueError, match="semantic"):
            block(image, semantic)
    for semantic in ([1.0] * 6, torch.ones(2, 6, dtype=torch.int64)):
        with pytest.raises(TypeError, match="semantic"):
            block(image, semantic)
