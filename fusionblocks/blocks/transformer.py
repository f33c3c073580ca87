"""The transformer block of channel attention, and its locally enhanced feed-forward network."""

from __future__ import annotations

from timm.layers import LayerNorm2d
from torch import Tensor, nn

from fusionblocks._support.checks import check_features, check_positive
from fusionblocks.blocks.by_rows import known_reach, must_own, run
from fusionblocks.blocks.channel_attention import ChannelAttention
from fusionblocks.blocks.reaching import in_a_row
from fusionblocks.image.rows import Rows


class LeFF(nn.Module):
    """Locally enhanced feed-forward network: 1 x 1, depthwise 3 x 3, 1 x 1, each activated, and its own residual.

    Args:
        channels: Width ``C`` of the feature map.
        hidden_channels: Width between the 1 x 1 convolutions; ``None``: ``channels``, as in the paper.

    Reference:
        "A Semantic-Aware and Multi-Guided Network for Infrared-Visible Image Fusion", 2025 (published class
        ``LeFF``).

    Example:
        >>> import torch
        >>> from fusionblocks import LeFF
        >>> LeFF(16)(torch.rand(1, 16, 9, 7)).shape
        torch.Size([1, 16, 9, 7])
    """

    kind = "map"

    def __init__(self, channels: int, *, hidden_channels: int | None = None) -> None:
        super().__init__()
        hidden = channels if hidden_channels is None else hidden_channels
        check_positive(channels=channels, hidden_channels=hidden)
        self.channels = channels
        self.expand = nn.Conv2d(channels, hidden, 1)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.reduce = nn.Conv2d(hidden, channels, 1)
        self.act = nn.GELU()

    def reach(self) -> int | None:
        """Return the rows around a row that are seen, see :func:`fusionblocks.blocks.reach`."""
        return in_a_row(self.expand, self.act, self.depthwise, self.act, self.reduce, self.act)

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``(B, C, H, W)``, the residual included."""
        check_features("x", x, self.channels)
        hidden = self.act(self.expand(x))
        hidden = self.act(self.depthwise(hidden))
        # SMFNet activates after the last convolution too
        return x + self.act(self.reduce(hidden))


class TransformerBlock(nn.Module):
    """Channel attention, then a feed-forward network, each behind a layer norm over channels and a residual.

    Args:
        channels: Width ``C`` of the feature map, a multiple of ``num_heads``.
        num_heads: Heads of :class:`ChannelAttention`.
        depthwise: Depthwise (MDTA) or dense local mixing in :class:`ChannelAttention`.
        feed_forward: Any module from ``(B, C, H, W)`` to the same shape; ``None``: :class:`LeFF`.

    Raises:
        ValueError: If ``channels`` is not a positive multiple of ``num_heads``.

    Reference:
        "A Semantic-Aware and Multi-Guided Network for Infrared-Visible Image Fusion", 2025 (published classes
        ``TransformerBlock``; ``BaseFeatureExtraction``, the fusion layer of the base features; and, with
        ``depthwise=False`` and a plain feed-forward network, ``TransformerBase``).

    Example:
        >>> import torch
        >>> from timm.layers import ConvMlp
        >>> from fusionblocks import TransformerBlock
        >>> block = TransformerBlock(16, num_heads=4, depthwise=False, feed_forward=ConvMlp(16, 32))
        >>> block(torch.rand(1, 16, 9, 7)).shape
        torch.Size([1, 16, 9, 7])
    """

    kind = "map"

    def __init__(
        self, channels: int, *, num_heads: int = 8, depthwise: bool = True, feed_forward: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.channels = channels
        self.attention = ChannelAttention(channels, num_heads=num_heads, depthwise=depthwise)
        self.feed_forward = LeFF(channels) if feed_forward is None else feed_forward
        self.norm1 = LayerNorm2d(channels, eps=1e-5)
        self.norm2 = LayerNorm2d(channels, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``(B, C, H, W)``, the residuals included."""
        check_features("x", x, self.channels)
        x = x + self.attention(self.norm1(x))
        return x + self.feed_forward(self.norm2(x))

    def by_rows(self, x: Rows) -> Rows:
        """Return the same of a map by rows: a sweep for the attention, then rows on demand."""
        must_own(self.attention, "over")
        attend, sees = self.attention.over(run(self.norm1, x))
        x = x.map(lambda x: x + attend(self.norm1(x)), reach=sees)
        return x.map(lambda x: x + self.feed_forward(self.norm2(x)), reach=known_reach(self.norm2, self.feed_forward))
