"""CAI: cross attention and an invertible block keep the high-frequency detail of a feature map."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fusionblocks._support.checks import check_alike, check_divisible, check_features
from fusionblocks.blocks.by_rows import known_reach, must_own
from fusionblocks.blocks.channel_attention import CrossChannelAttention
from fusionblocks.blocks.inverted_residual import InvertedResidual
from fusionblocks.blocks.invertible_conv import InvertibleConv1x1, split_channels
from fusionblocks.blocks.reaching import in_a_row, side_by_side
from fusionblocks.image.rows import Rows


class DetailNode(nn.Module):
    """Invertible block: mixes the halves, shifts the second by the first, scales and shifts the first by the second.

    Args:
        channels: Width ``C`` of both halves together, an even number.
        expand_ratio: Hidden channels of the subnets for each of their input channels.

    Raises:
        ValueError: If ``channels`` is not even.

    Reference:
        "A Semantic-Aware and Multi-Guided Network for Infrared-Visible Image Fusion", 2025 (published class
        ``DetailNode``).

    Example:
        >>> import torch
        >>> from fusionblocks import DetailNode
        >>> _ = torch.manual_seed(0)
        >>> node = DetailNode(8).double()
        >>> first, second = torch.rand(2, 1, 4, 9, 7).double()
        >>> _, restored = node.inverse(*node(first, second))
        >>> torch.allclose(restored, second)
        True
    """

    kind = "exchange"

    def __init__(self, channels: int, *, expand_ratio: float = 2) -> None:
        super().__init__()
        check_divisible("channels", channels, "the number of halves", 2)
        half = channels // 2
        self.channels = channels
        self.half_channels = half
        self.mix = InvertibleConv1x1(channels)
        self.shift_second = InvertedResidual(half, expand_ratio=expand_ratio)  # phi
        self.scale_first = InvertedResidual(half, expand_ratio=expand_ratio)  # rho
        self.shift_first = InvertedResidual(half, expand_ratio=expand_ratio)  # eta

    def reach(self) -> int | None:
        """Return the rows around a row that are seen, see :func:`fusionblocks.blocks.reach`."""
        return in_a_row(self.mix, self.shift_second, side_by_side(self.scale_first, self.shift_first))

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Mix and couple the halves.

        Args:
            first: Feature map ``(B, C/2, H, W)``.
            second: Feature map ``(B, C/2, H, W)``.

        Returns:
            Both halves, each ``(B, C/2, H, W)``.
        """
        self._check(first, second)
        first, second = split_channels(self.mix(torch.cat([first, second], dim=1)))
        second = second + self.shift_second(first)
        first = first * torch.exp(self.scale_first(second)) + self.shift_first(second)
        return first, second

    def inverse(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Return the halves from which ``forward`` makes ``first`` and ``second``.

        Args:
            first: Feature map ``(B, C/2, H, W)``.
            second: Feature map ``(B, C/2, H, W)``.

        Returns:
            Both halves, each ``(B, C/2, H, W)``.

        Raises:
            ValueError: If the channel matrix of the mixing convolution is singular.
        """
        self._check(first, second)
        first = (first - self.shift_first(second)) * torch.exp(-self.scale_first(second))
        second = second - self.shift_second(first)
        return split_channels(self.mix.inverse(torch.cat([first, second], dim=1)))

    def _check(self, first: Tensor, second: Tensor) -> None:
        check_alike(self.half_channels, first=first, second=second)


class CAI(nn.Module):
    """Cross attention and invertible block (CAI): the halves of a map guide each other, then couple invertibly.

    Both directions share one cross attention.

    Args:
        channels: Width ``C`` of the feature map, a multiple of ``2 * num_heads``.
        num_heads: Heads of the cross attention.
        expand_ratio: Hidden channels of the coupling's subnets for each of their input channels.

    Raises:
        ValueError: If ``channels`` is not a positive multiple of ``2 * num_heads``.

    Reference:
        "A Semantic-Aware and Multi-Guided Network for Infrared-Visible Image Fusion", 2025 (published class
        ``DetailFeatureExtraction_Encoder``).

    Example:
        >>> import torch
        >>> from fusionblocks import CAI
        >>> CAI(16, num_heads=4)(torch.rand(1, 16, 9, 7)).shape
        torch.Size([1, 16, 9, 7])
    """

    kind = "map"

    def __init__(self, channels: int, *, num_heads: int = 8, expand_ratio: float = 2) -> None:
        super().__init__()
        check_divisible("channels", channels, "2 * num_heads", 2 * num_heads)
        self.channels = channels
        self.attention = CrossChannelAttention(channels // 2, num_heads=num_heads)
        self.coupling = DetailNode(channels, expand_ratio=expand_ratio)

    def forward(self, x: Tensor) -> Tensor:
        """Extract the detail features ``(B, C, H, W)`` of a feature map ``(B, C, H, W)``."""
        check_features("x", x, self.channels)
        guided = (self.attention(guide=guide, value=value) for guide, value in _both_ways(x))
        return torch.cat(self.coupling(*guided), dim=1)

    def by_rows(self, x: Rows) -> Rows:
        """Return the same of a map by rows: a sweep for the attention of both directions, then rows on demand."""
        must_own(self.attention, "over")
        attend, sees = self.attention.over(x, _both_ways)
        reach = sees + known_reach(self.coupling)
        return x.map(lambda x: torch.cat(self.coupling(*attend(x)), dim=1), reach=reach)


def _both_ways(x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return the guide and the value of both directions."""
    first, second = split_channels(x)
    return [(second, first), (first, second)]
