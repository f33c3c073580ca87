"""Channel attention in two sweeps over the picture, and the blocks of SMFNet around it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import einsum, rearrange
from timm.layers import ConvMlp
from torch import Tensor, nn

from fusionblocks.blocks._checks import check_features
from fusionblocks.blocks.base_feature_extraction import ResidualTransformerGroup
from fusionblocks.blocks.cai import CAI
from fusionblocks.blocks.channel_attention import ChannelAttention, CrossChannelAttention
from fusionblocks.blocks.invertible_conv import split_channels
from fusionblocks.blocks.transformer import LeFF, TransformerBlock
from fusionblocks.optimization.recast import fast
from fusionblocks.optimization.strips import empty_map, in_strips, pays, strips

# Shapes: B batch, C channels, H W picture, heads x c = C, n pixels of a strip

EPS = 1e-12  # the operator's smallest norm


def gather(
    project: Callable[..., tuple[Tensor, Tensor, Tensor]],
    temperature: Tensor,
    output: nn.Conv2d,
    *maps: Tensor,
    factor: int = 1,
    onto: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Sweep once over the maps: the first half of channel attention.

    Args:
        project: From strips of the maps to query, key and value ``(B, C, h, W)``; it sees one row around a row.
        temperature: ``(heads, 1, 1)``.
        output: The 1x1 convolution behind the attention, which is multiplied into the matrix.
        *maps: What ``project`` takes, ``(B, *, H, W)``.
        factor: How many times higher than usual the strips are.
        onto: A map that may be overwritten with the values.

    Returns:
        The values ``(B, C, H, W)``, and the matrix ``(B, C_out, C)`` to apply to them.
    """
    gram = squares_query = squares_key = None
    values = onto
    for strip in strips(maps[0], halo=1, factor=factor):
        query, key, value = (strip.inner(x) for x in project(*(strip.of(x) for x in maps)))
        if values is None:
            values = empty_map(value, maps[0].shape[2])
        values[:, :, strip.top : strip.bottom] = value
        exact = torch.promote_types(query.dtype, torch.float32)
        query, key = (rearrange(x, "b c h w -> b (h w) c") for x in (query, key))
        products = [of_query.mT @ of_key for of_query, of_key in zip(query, key, strict=True)]  # a bmm would copy both
        parts = (
            torch.stack(products).to(exact),
            query.square().sum(dim=1).to(exact),
            key.square().sum(dim=1).to(exact),
        )
        if gram is None:
            gram, squares_query, squares_key = parts
        else:
            gram, squares_query, squares_key = gram + parts[0], squares_query + parts[1], squares_key + parts[2]
    norms = squares_query.sqrt().clamp_min(EPS)[:, :, None] * squares_key.sqrt().clamp_min(EPS)[:, None]
    # channels of one head alone attend to each other: the blocks on the diagonal
    heads = temperature.shape[0]
    blocks = rearrange(gram / norms, "b (i c) (j d) -> b i j c d", i=heads, j=heads).diagonal(dim1=1, dim2=2)
    attention = (rearrange(blocks, "b c d heads -> b heads c d") * temperature.to(gram.dtype)).softmax(dim=-1)
    weight = rearrange(output.weight, "out (heads c) 1 1 -> out heads c", heads=heads).to(gram.dtype)
    matrix = einsum(weight, attention, "out heads c, b heads c d -> b out heads d")
    return values, rearrange(matrix, "b out heads d -> b out (heads d)").to(values.dtype)


def mix(matrix: Tensor, x: Tensor, onto: Tensor | None = None) -> Tensor:
    """Return the channels of ``x`` mixed by each picture's own matrix ``(B, C_out, C)``, added onto a map."""
    pixels = rearrange(x, "b c h w -> b (h w) c")
    if onto is None:
        mixed = torch.bmm(pixels, matrix.mT)
    else:
        mixed = torch.baddbmm(rearrange(onto, "b c h w -> b (h w) c"), pixels, matrix.mT)
    return rearrange(mixed, "b (h w) c -> b c h w", h=x.shape[2])


@fast(ChannelAttention)
class FastChannelAttention(ChannelAttention):
    """The two dense convolutions of SMFNet's base branch are composed once; see :func:`gather` for the rest."""

    def prepare(self) -> None:
        """Compose what ``_mixed`` composes in every pass."""
        if self.qkv_local.groups > 1 or self.qkv.bias is not None:
            return
        weight = einsum(
            self.qkv_local.weight.double(), self.qkv.weight.double()[:, :, 0, 0], "out m kh kw, m c -> out c kh kw"
        )
        composed = nn.utils.skip_init(
            nn.Conv2d, self.channels, 3 * self.channels, 3, padding=1, bias=False, dtype=self.qkv.weight.dtype
        )
        composed.weight = nn.Parameter(weight.to(self.qkv.weight.dtype), requires_grad=False)
        self.qkv, self.qkv_local = nn.Identity(), composed

    def _mixed(self, x: Tensor) -> Tensor:
        return self.qkv_local(self.qkv(x))

    def gather(self, x: Tensor, norm: nn.Module, onto: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the values of ``norm(x)``, perhaps in the memory of ``onto``, and the matrix to apply to them."""

        def project(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return self._mixed(norm(x)).chunk(3, dim=1)

        # the row that neighbouring strips share costs a dense convolution more than what leaves the cache
        factor = 2 if self.qkv_local.groups == 1 else 1
        return gather(project, self.temperature, self.project, x, factor=factor, onto=onto)


HALOS: dict[type[nn.Module], int] = {LeFF: 1, ConvMlp: 0}
"""Rows around a row that a feed-forward network sees."""


@fast(TransformerBlock)
class FastTransformerBlock(TransformerBlock):
    """Two sweeps: query, key and value with their products, then everything behind the attention matrix."""

    def forward(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        """Transform ``(B, C, H, W)``, the residuals included; ``onto`` is another map that may be overwritten."""
        check_features("x", x, self.channels)
        halo = HALOS.get(type(self.feed_forward))
        if halo is None or not pays(x) or self.attention.project.bias is not None:
            return super().forward(x)
        values, matrix = self.attention.gather(x, self.norm1, onto)

        def transform(x: Tensor, values: Tensor) -> Tensor:
            x = mix(matrix, values, onto=x)
            return x + self.feed_forward(self.norm2(x))

        return in_strips(transform, x, values, halo=halo, onto=(values,))


@fast(ResidualTransformerGroup)
class FastResidualTransformerGroup(ResidualTransformerGroup):
    """The bottleneck and the residual in one sweep; the blocks before it write by turns to two maps."""

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``(B, C, H, W)``, the residual included."""
        check_features("x", x, self.channels)
        blocks = [block for pair in self.pairs for block in (pair if type(pair) is nn.Sequential else [pair])]
        if not all(isinstance(block, FastTransformerBlock) for block in blocks):
            return super().forward(x)
        y: Tensor = x
        spare: Tensor | None = None
        for block in blocks:
            y, spare = block(y, spare), None if y is x else y
        return in_strips(lambda x, y: x + self.bottleneck(y), x, y, halo=2, factor=2, onto=(y,))


@fast(CAI)
class FastCAI(CAI):
    """Three sweeps: each direction's attention matrix, then both applications and the coupling."""

    def forward(self, x: Tensor) -> Tensor:
        """Extract the detail features ``(B, C, H, W)`` of a feature map ``(B, C, H, W)``."""
        check_features("x", x, self.channels)
        if not pays(x):
            return super().forward(x)
        attention = self.attention
        first, second = split_channels(x)
        values = empty_map(x, x.shape[2])
        values_first, values_second = split_channels(values)
        _, matrix_first = self._gather(guide=second, value=first, onto=values_first)
        _, matrix_second = self._gather(guide=first, value=second, onto=values_second)
        bias = 0 if attention.project.bias is None else rearrange(attention.project.bias, "c -> c 1 1")

        def couple(first: Tensor, second: Tensor) -> Tensor:
            halves = self.coupling(mix(matrix_first, first) + bias, mix(matrix_second, second) + bias)
            return torch.cat(halves, dim=1)

        return in_strips(couple, values_first, values_second, halo=2, factor=2, onto=(values,))

    def _gather(self, guide: Tensor, value: Tensor, onto: Tensor) -> tuple[Tensor, Tensor]:
        attention: CrossChannelAttention = self.attention

        def project(guide: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            key, content = attention.key_value_local(attention.key_value(value)).chunk(2, dim=1)
            return attention.query_local(attention.query(guide)), key, content

        return gather(project, attention.temperature, attention.project, guide, value, onto=onto)
