"""Attention between channels: one ``C x C`` map a head, so the cost grows linearly with the picture."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from einops import einsum, rearrange
from torch import Tensor, nn

from fusionblocks._support.checks import check_alike, check_divisible, check_features
from fusionblocks._support.modules import is_a, is_watched
from fusionblocks.blocks.by_rows import known_reach
from fusionblocks.blocks.gram import Gram, HeldMatrices, mix
from fusionblocks.image.rows import Rows
from fusionblocks.ops import channel_attention

# Shapes: B batch, C channels, H W picture, heads x c = C


class ChannelAttention(nn.Module):
    """Self-attention over channels (MDTA): every channel of a head looks at the head's other channels.

    Args:
        channels: Width ``C`` of the feature map, a multiple of ``num_heads``.
        num_heads: Groups of channels that attend among themselves.
        depthwise: Mix each projection's neighbourhood channel by channel (MDTA); ``False`` mixes all channels of
            the projections with a dense 3 x 3 convolution, as the second block of SMFNet's base branch does.
        bias: Give the convolutions a bias.

    Raises:
        ValueError: If ``channels`` is not a positive multiple of ``num_heads``.

    Reference:
        "Restormer: Efficient Transformer for High-Resolution Image Restoration", 2022 (MDTA); "A Semantic-Aware and
        Multi-Guided Network for Infrared-Visible Image Fusion", 2025 (published classes ``Attention`` and
        ``AttentionBase``).

    Example:
        >>> import torch
        >>> from fusionblocks import ChannelAttention
        >>> ChannelAttention(16, num_heads=4)(torch.rand(1, 16, 9, 7)).shape
        torch.Size([1, 16, 9, 7])
    """

    kind = "map"
    held: HeldMatrices | None = None  # keeps the matrices steady through a sequence, set by FusionStream

    def __init__(self, channels: int, *, num_heads: int = 8, depthwise: bool = True, bias: bool = False) -> None:
        super().__init__()
        check_divisible("channels", channels, "num_heads", num_heads)
        self.channels = channels
        self.num_heads = num_heads
        groups = 3 * channels if depthwise else 1
        self.temperature = nn.Parameter(torch.ones(num_heads, 1, 1))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=bias)
        self.qkv_local = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=groups, bias=bias)
        self.project = nn.Conv2d(channels, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Attend.

        Args:
            x: Feature map ``(B, C, H, W)``.

        Returns:
            The attended feature map ``(B, C, H, W)``; the residual is the caller's.
        """
        check_features("x", x, self.channels)
        query, key, value = self._mixed(x).chunk(3, dim=1)
        return _attend(query, key, value, self.temperature, self.project, self.held)

    def over(self, x: Rows) -> tuple[Callable[[Tensor], Tensor], int]:
        """Return what the attention over a map by rows makes of some of its rows, and the rows that this sees.

        The map is swept once, when the first rows are asked for.
        """
        sees = known_reach(self.qkv, self.qkv_local, self.project)

        @functools.cache
        def matrix() -> Tensor:
            gram = Gram()
            for _, strip in x.map(lambda x: self._mixed(x)[:, : 2 * self.channels], reach=sees).strips():
                gram.add(*strip.chunk(2, dim=1))
            return _held(self.held, lambda: gram.matrix(self.temperature, self.project))

        return lambda x: _projected(matrix(), self._mixed(x)[:, 2 * self.channels :], self.project), sees

    def _mixed(self, x: Tensor) -> Tensor:
        """Return query, key and value ``(B, 3 C, H, W)``, projected and mixed with their neighbourhood."""
        if not self.composable:
            return self.qkv_local(self.qkv(x))
        conv = self.qkv_local
        return nn.functional.conv2d(x, self.composed_weight(), None, conv.stride, conv.padding, conv.dilation)

    @property
    def composable(self) -> bool:
        """Whether nothing lies between both convolutions, so that one of a third of the arithmetic does as much."""
        return (
            is_a(self.qkv, nn.Conv2d)
            and is_a(self.qkv_local, nn.Conv2d)
            and not is_watched(self.qkv)
            and not is_watched(self.qkv_local)
            and self.qkv.kernel_size == (1, 1)
            and self.qkv.stride == (1, 1)
            and self.qkv.padding == (0, 0)
            and self.qkv.groups == self.qkv_local.groups == 1
            and self.qkv.bias is None
            and self.qkv_local.bias is None
            and self.qkv_local.padding_mode == "zeros"
        )

    def composed_weight(self, dtype: torch.dtype | None = None) -> Tensor:
        """Return the weight ``(3 C, C, kh, kw)`` of the one convolution that both are together."""
        weight, inner = self.qkv_local.weight.to(dtype), rearrange(self.qkv.weight.to(dtype), "m c 1 1 -> m c")
        return einsum(weight, inner, "out m kh kw, m c -> out c kh kw")


class CrossChannelAttention(nn.Module):
    """Attention over channels between two feature maps: the guide asks, the other map answers.

    Args:
        channels: Width ``C`` of both maps, a multiple of ``num_heads``.
        num_heads: Groups of channels that attend among themselves.
        bias: Give the convolutions a bias.

    Raises:
        ValueError: If ``channels`` is not a positive multiple of ``num_heads``.

    Reference:
        "A Semantic-Aware and Multi-Guided Network for Infrared-Visible Image Fusion", 2025 (published class
        ``Cross_Trans_Attention``).

    Example:
        >>> import torch
        >>> from fusionblocks import CrossChannelAttention
        >>> guide, value = torch.rand(2, 1, 16, 9, 7)
        >>> CrossChannelAttention(16, num_heads=4)(guide, value).shape
        torch.Size([1, 16, 9, 7])
    """

    stands_alone = "takes two maps, and the one that guides comes first"
    held: HeldMatrices | None = None  # keeps the matrices steady through a sequence, set by FusionStream

    def __init__(self, channels: int, *, num_heads: int = 8, bias: bool = True) -> None:
        super().__init__()
        check_divisible("channels", channels, "num_heads", num_heads)
        self.channels = channels
        self.num_heads = num_heads
        self.temperature = nn.Parameter(torch.ones(num_heads, 1, 1))
        self.query = nn.Conv2d(channels, channels, 1, bias=bias)
        self.query_local = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=bias)
        self.key_value = nn.Conv2d(channels, 2 * channels, 1, bias=bias)
        self.key_value_local = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels, bias=bias)
        self.project = nn.Conv2d(channels, channels, 1, bias=bias)

    def forward(self, guide: Tensor, value: Tensor) -> Tensor:
        """Attend.

        Args:
            guide: Feature map ``(B, C, H, W)`` that gives the queries.
            value: Feature map ``(B, C, H, W)`` that gives keys and values.

        Returns:
            The feature map ``(B, C, H, W)`` of ``value``'s content, mixed as ``guide`` asks.
        """
        check_alike(self.channels, guide=guide, value=value)
        return _attend(*self._mixed(guide, value), self.temperature, self.project, self.held)

    def _mixed(self, guide: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return query, key and content, each ``(B, C, H, W)``."""
        query = self.query_local(self.query(guide))
        key, content = self.key_value_local(self.key_value(value)).chunk(2, dim=1)
        return query, key, content

    def over(
        self, x: Rows, pairs: Callable[[Tensor], list[tuple[Tensor, Tensor]]]
    ) -> tuple[Callable[[Tensor], list[Tensor]], int]:
        """Return what attention over a map by rows makes of some of its rows, and the rows that this sees.

        The map is swept once for all pairs, when the first rows are asked for.

        Args:
            x: The map.
            pairs: From rows of the map to guides and values.
        """
        sees = max(known_reach(self.query, self.query_local), known_reach(self.key_value, self.key_value_local))
        sees += known_reach(self.project)

        def asked(x: Tensor) -> Tensor:
            return torch.cat([part for pair in pairs(x) for part in self._mixed(*pair)[:2]], dim=1)

        @functools.cache
        def matrices() -> list[Tensor]:
            grams: list[Gram] = []
            for _, strip in x.map(asked, reach=sees).strips():
                parts = strip.split(self.channels, dim=1)
                grams = grams or [Gram() for _ in parts[::2]]
                for gram, query, key in zip(grams, parts[::2], parts[1::2], strict=True):
                    gram.add(query, key)
            makers = [functools.partial(gram.matrix, self.temperature, self.project) for gram in grams]
            return [_held(self.held, make) for make in makers]

        def attend(x: Tensor) -> list[Tensor]:
            contents = (self._mixed(*pair)[2] for pair in pairs(x))
            pairs_of = zip(matrices(), contents, strict=True)
            return [_projected(matrix, content, self.project) for matrix, content in pairs_of]

        return attend, sees


def _projected(matrix: Tensor, value: Tensor, project: nn.Conv2d) -> Tensor:
    """Return the channels of rows of values mixed by a matrix, with the projection's bias."""
    mixed = mix(matrix.to(value.dtype), value)
    return mixed if project.bias is None else mixed + rearrange(project.bias, "c -> c 1 1").to(mixed.dtype)


def _held(held: HeldMatrices | None, make: Callable[[], Tensor]) -> Tensor:
    """Return a matrix, kept steady where one is held."""
    return make() if held is None else held.of(make)


def _attend(
    query: Tensor, key: Tensor, value: Tensor, temperature: Tensor, project: nn.Conv2d, held: HeldMatrices | None
) -> Tensor:
    """Split ``(B, C, H, W)`` maps into heads, attend over channels, join the heads and project them."""
    if held is not None:
        return _projected(held.of(lambda: Gram().add(query, key).matrix(temperature, project)), value, project)
    heads, height = temperature.shape[0], query.shape[-2]
    if torch.compiler.is_exporting():  # parts of a tensor are contiguous or not by the batch's size: an export binds it
        query, key, value = (x.clone(memory_format=torch.contiguous_format) for x in (query, key, value))
    query, key, value = (rearrange(x, "b (heads c) h w -> b heads c (h w)", heads=heads) for x in (query, key, value))
    # the operator multiplies the 1 x 1 convolution into the small C x C maps, which saves a pass over the picture
    weight = rearrange(project.weight, "c_out c_in 1 1 -> c_out c_in")
    attended = rearrange(
        channel_attention(query, key, value, temperature, projection=weight), "b c (h w) -> b c h w", h=height
    )
    return attended if project.bias is None else attended + rearrange(project.bias, "c -> c 1 1").to(attended.dtype)
