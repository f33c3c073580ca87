"""Channel attention in two sweeps over the picture, and the blocks of SMFNet around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from fusionblocks._support.checks import check_features
from fusionblocks._support.modules import is_a
from fusionblocks.blocks.base_feature_extraction import ResidualTransformerGroup
from fusionblocks.blocks.cai import CAI
from fusionblocks.blocks.channel_attention import ChannelAttention, CrossChannelAttention
from fusionblocks.blocks.gram import Gram, HeldMatrices, mix
from fusionblocks.blocks.invertible_conv import split_channels
from fusionblocks.blocks.reaching import in_a_row, side_by_side
from fusionblocks.blocks.transformer import TransformerBlock
from fusionblocks.optimization.rewriting import Rewrite, is_convolution, is_pointwise, like, rewrites
from fusionblocks.optimization.strips import empty_map, in_strips, pays, strips

# Shapes: B batch, C channels, H W picture, heads x c = C, n pixels of a strip


def gather(
    project: Callable[..., tuple[Tensor, Tensor, Tensor]],
    temperature: Tensor,
    output: nn.Conv2d,
    *maps: Tensor,
    halo: int,
    factor: int = 1,
    onto: Tensor | None = None,
    held: HeldMatrices | None = None,
) -> tuple[Tensor, Tensor]:
    """Sweep once over the maps: the first half of channel attention.

    Args:
        project: From strips of the maps to query, key and value ``(B, C, h, W)``.
        temperature: ``(heads, 1, 1)``.
        output: The 1x1 convolution behind the attention, which is multiplied into the matrix.
        *maps: What ``project`` takes, ``(B, *, H, W)``.
        halo: Rows around a row that ``project`` sees.
        factor: How many times higher than usual the strips are.
        onto: A map that may be overwritten with the values.
        held: What keeps the matrix steady through a sequence.

    Returns:
        The values ``(B, C, H, W)``, and the matrix ``(B, C_out, C)`` to apply to them.
    """
    gram, values = Gram(), onto
    wanted = held is None or held.wanted
    for strip in strips(maps[0], halo=halo, factor=factor):
        query, key, value = (strip.inner(x) for x in project(*(strip.of(x) for x in maps)))
        if values is None:
            values = empty_map(value, maps[0].shape[2])
        values[:, :, strip.top : strip.bottom] = value
        if wanted:
            gram.add(query, key)
    matrix = gram.matrix(temperature, output) if held is None else held.of(lambda: gram.matrix(temperature, output))
    return values, matrix.to(values.dtype)


@rewrites(ChannelAttention)
class FastChannelAttention(Rewrite, ChannelAttention):
    """The two dense convolutions of SMFNet's base branch are composed once; see :func:`gather` for the rest."""

    composed: nn.Conv2d | None

    @classmethod
    def fits(cls, module: Any) -> bool:
        """The projections are convolutions that keep the size."""
        return (
            is_pointwise(module.qkv)
            and is_convolution(module.qkv_local)
            and is_pointwise(module.project)
            and module.qkv_local.out_channels == 3 * module.project.in_channels
        )

    def prepare(self) -> None:
        """Compose what the attention composes in every pass."""
        self.composed = None
        if self.composable:
            weight = self.composed_weight(torch.float64).to(self.qkv.weight.dtype)
            self.composed = like(self.qkv_local, weight, None)

    def _mixed(self, x: Tensor) -> Tensor:
        return super()._mixed(x) if self.composed is None else self.composed(x)

    def gather(self, x: Tensor, norm: nn.Module, halo: int, onto: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the values of ``norm(x)``, perhaps in the memory of ``onto``, and the matrix to apply to them."""

        def project(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return self._mixed(norm(x)).chunk(3, dim=1)

        # the rows that neighbouring strips share cost a dense convolution more than what leaves the cache
        factor = 2 if self.qkv_local.groups == 1 else 1
        return gather(project, self.temperature, self.project, x, halo=halo, factor=factor, onto=onto, held=self.held)


@rewrites(TransformerBlock)
class FastTransformerBlock(Rewrite, TransformerBlock):
    """Two sweeps: query, key and value with their products, then everything behind the attention matrix."""

    attention: FastChannelAttention
    halos: tuple[int, int]

    @classmethod
    def reaches(cls, module: Any) -> tuple[int | None, int | None]:
        """Return what the sweep before and the one behind the attention matrix see."""
        before = in_a_row(module.norm1, module.attention.qkv, module.attention.qkv_local)
        return before, in_a_row(module.norm2, module.feed_forward)

    @classmethod
    def fits(cls, module: Any) -> bool:
        """Norms and feed-forward network have a reach, and the attention is the usual one."""
        return (
            is_a(module.attention, ChannelAttention)
            and FastChannelAttention.fits(module.attention)
            and module.attention.project.bias is None
            and module.attention.channels == module.channels
            and None not in cls.reaches(module)
        )

    def prepare(self) -> None:
        """Find what the sweeps see."""
        self.halos = self.reaches(self)

    def forward(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        """Transform ``(B, C, H, W)``, the residuals included; ``onto`` is another map that may be overwritten."""
        check_features("x", x, self.channels)
        if not pays(x):
            return super().forward(x)
        values, matrix = self.attention.gather(x, self.norm1, self.halos[0], onto)

        def transform(x: Tensor, values: Tensor) -> Tensor:
            x = mix(matrix, values, onto=x)
            return x + self.feed_forward(self.norm2(x))

        return in_strips(transform, x, values, halo=self.halos[1], onto=(values,))


@rewrites(ResidualTransformerGroup)
class FastResidualTransformerGroup(Rewrite, ResidualTransformerGroup):
    """The bottleneck and the residual in one sweep; the blocks before it write by turns to two maps."""

    halo: int

    @staticmethod
    def blocks_of(pairs: Any) -> list[nn.Module]:
        """Return the blocks of all pairs in order, of a sequence of sequences."""
        return [block for pair in pairs for block in (pair if isinstance(pair, nn.Sequential) else [pair])]

    @classmethod
    def fits(cls, module: Any) -> bool:
        """All blocks are transformer blocks that are made fast, and the bottleneck has a reach."""
        if not is_a(module.pairs, nn.Sequential) or in_a_row(module.bottleneck) is None:
            return False
        blocks = cls.blocks_of(module.pairs)
        return bool(blocks) and all(
            is_a(block, TransformerBlock) and FastTransformerBlock.fits(block) for block in blocks
        )

    def prepare(self) -> None:
        """Find what the bottleneck sees."""
        self.halo = in_a_row(self.bottleneck)

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``(B, C, H, W)``, the residual included."""
        check_features("x", x, self.channels)
        y: Tensor = x
        spare: Tensor | None = None
        for block in self.blocks_of(self.pairs):
            y, spare = block(y, spare), None if y is x else y
        return in_strips(lambda x, y: x + self.bottleneck(y), x, y, halo=self.halo, factor=2, onto=(y,))


@rewrites(CAI)
class FastCAI(Rewrite, CAI):
    """Three sweeps: each direction's attention matrix, then both applications and the coupling."""

    halos: tuple[int, int]

    @classmethod
    def reaches(cls, module: Any) -> tuple[int | None, int | None]:
        """Return what the sweeps before and the one behind the attention matrices see."""
        attention = module.attention
        query = in_a_row(attention.query, attention.query_local)
        return side_by_side(query, in_a_row(attention.key_value, attention.key_value_local)), in_a_row(module.coupling)

    @classmethod
    def fits(cls, module: Any) -> bool:
        """The attention is the usual one over half of the channels, and the coupling has a reach."""
        return (
            is_a(module.attention, CrossChannelAttention)
            and is_pointwise(module.attention.project)
            and 2 * module.attention.channels == module.channels
            and None not in cls.reaches(module)
        )

    def prepare(self) -> None:
        """Find what the sweeps see."""
        self.halos = self.reaches(self)

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

        return in_strips(couple, values_first, values_second, halo=self.halos[1], factor=2, onto=(values,))

    def _gather(self, guide: Tensor, value: Tensor, onto: Tensor) -> tuple[Tensor, Tensor]:
        attention: CrossChannelAttention = self.attention

        def project(guide: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            key, content = attention.key_value_local(attention.key_value(value)).chunk(2, dim=1)
            return attention.query_local(attention.query(guide)), key, content

        halo = self.halos[0]
        maps = (guide, value)
        return gather(
            project, attention.temperature, attention.project, *maps, halo=halo, onto=onto, held=attention.held
        )
