"""The networks in their published formulation: the library's weights, computed in the steps of the papers' code.

``publish`` takes a network built from blocks and exchanges every block that takes an exact shortcut for one that does
not: attention makes normalised copies and whole matrices, the layer norm goes through a layout of positions by
channels, consecutive convolutions run one after the other, a lone token is asked by every pixel, and the answers of
all experts are kept until they are summed. All else in the blocks is what the papers' code does too. This is not a copy
of that code, and times measured with it can differ from those of the authors' repositories.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import torch
from einops import rearrange
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.func import functional_call

from benchmarks import published_ops
from fusionblocks.blocks.channel_attention import ChannelAttention, CrossChannelAttention
from fusionblocks.blocks.clip_query_attention import CLIPQueryAttention
from fusionblocks.blocks.mixture_of_experts import MixtureOfExperts
from fusionblocks.blocks.psfm import DualCrossAttention


class Published(nn.Module):
    """A block's weights and the published way to use them."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block


class PublishedLayerNorm(Published):
    def forward(self, x: Tensor) -> Tensor:
        rows = rearrange(x, "b c h w -> b (h w) c")
        mean, variance = rows.mean(-1, keepdim=True), rows.var(-1, keepdim=True, unbiased=False)
        rows = (rows - mean) / torch.sqrt(variance + self.block.eps) * self.block.weight + self.block.bias
        return rearrange(rows, "b (h w) c -> b c h w", h=x.shape[2])


class PublishedChannelAttention(Published):
    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.block.qkv_local(self.block.qkv(x)).chunk(3, dim=1)
        return attend_over_channels(self.block, query, key, value)


class PublishedCrossChannelAttention(Published):
    def forward(self, guide: Tensor, value: Tensor) -> Tensor:
        query = self.block.query_local(self.block.query(guide))
        key, content = self.block.key_value_local(self.block.key_value(value)).chunk(2, dim=1)
        return attend_over_channels(self.block, query, key, content)


def attend_over_channels(block: nn.Module, *query_key_value: Tensor) -> Tensor:
    height = query_key_value[0].shape[2]
    heads = [rearrange(x, "b (heads c) h w -> b heads c (h w)", heads=block.num_heads) for x in query_key_value]
    attended = published_ops.channel_attention(*heads, block.temperature)
    return block.project(rearrange(attended, "b heads c (h w) -> b (heads c) h w", h=height))


class PublishedDualCrossAttention(Published):
    def forward(self, infrared: Tensor, visible: Tensor) -> Tensor:
        block, height = self.block, infrared.shape[2]

        def rows(x: Tensor) -> Tensor:
            return rearrange(x, "b (heads c) h w -> b heads (h w) c", heads=block.num_heads)

        def picture(x: Tensor) -> Tensor:
            return rearrange(x, "b heads (h w) c -> b (heads c) h w", h=height)

        from_infrared, from_visible = published_ops.dual_cross_attention(
            rows(block.infrared_query(infrared)),
            rows(block.visible_query(visible)),
            rows(block.shared_key(torch.cat([visible, infrared], dim=1))),
            rows(block.infrared_value(infrared)),
            rows(block.visible_value(visible)),
            block.scale,
        )
        refined_infrared = infrared + block.visible_gain * picture(from_visible)
        refined_visible = visible + block.infrared_gain * picture(from_infrared)
        return block.merge(torch.cat([refined_infrared, refined_visible], dim=1))


class PublishedCLIPQueryAttention(Published):
    """Multi-head attention of PyTorch, its weights put together once."""

    def __init__(self, block: CLIPQueryAttention) -> None:
        super().__init__(block)
        if block.asks != "image":
            raise ValueError(f"the published network asks from the image, got query={block.asks!r}")
        with torch.no_grad():
            self.state = {
                "in_proj_weight": torch.cat([block.query.weight, block.key.weight, block.value.weight]),
                "in_proj_bias": torch.cat([block.query.bias, block.key.bias, block.value.bias]),
                "out_proj.weight": block.out.weight,
                "out_proj.bias": block.out.bias,
            }
        with torch.device("meta"):
            self.attention = nn.MultiheadAttention(block.channels, block.num_heads)

    def forward(self, image: Tensor, semantic: Tensor) -> Tensor:
        image = self.block.image_projection(image)
        tokens = self.block.semantic_projection(semantic if semantic.ndim == 3 else semantic[:, None])
        attention = partial(functional_call, self.attention, self.state)
        answer = published_ops.clip_query_attention(image.flatten(2), tokens, attention)
        return rearrange(answer, "b c (h w) -> b c h w", h=image.shape[2])


class PublishedMixture(Published):
    def forward(self, x: Tensor) -> Tensor:
        answers = [expert(x) for expert in self.block.experts]
        weights = torch.softmax(self.block.gating(x), dim=1)
        return self.block.act(sum(weights[:, i : i + 1] * answer for i, answer in enumerate(answers)))


FORMULATIONS: dict[type[nn.Module], Callable[[nn.Module], Published]] = {
    LayerNorm2d: PublishedLayerNorm,
    ChannelAttention: PublishedChannelAttention,
    CrossChannelAttention: PublishedCrossChannelAttention,
    DualCrossAttention: PublishedDualCrossAttention,
    CLIPQueryAttention: PublishedCLIPQueryAttention,
    MixtureOfExperts: PublishedMixture,
}


def publish(network: nn.Module) -> nn.Module:
    """Return a copy of a network in its published formulation, for inference on the device and in the dtype it has."""
    return exchanged(copy.deepcopy(network))


def exchanged(module: nn.Module) -> nn.Module:
    """Exchange the blocks inside a module, then the module itself if it is one of those."""
    for name, child in module.named_children():
        setattr(module, name, exchanged(child))
    for kind, formulation in FORMULATIONS.items():
        if isinstance(module, kind):
            return formulation(module)
    return module
