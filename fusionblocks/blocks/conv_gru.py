"""The convolutional gated recurrent unit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fusionblocks._support.checks import check_features, check_positive
from fusionblocks.blocks.reaching import in_a_row


class ConvGRUCell(nn.Module):
    """Gated recurrent unit whose products are convolutions: updates a hidden feature map from an input one.

    Args:
        in_channels: Width ``C_in`` of the input.
        hidden_channels: Width ``C`` of the hidden state; ``None``: ``in_channels``.
        kernel_size: Odd size of the convolutions.

    Raises:
        ValueError: If ``kernel_size`` is even.

    Reference:
        "Delving Deeper into Convolutional Networks for Learning Video Representations", 2016; "A Semantic-Aware and
        Multi-Guided Network for Infrared-Visible Image Fusion", 2025 (published class ``ConvGRUCell``).

    Example:
        >>> import torch
        >>> from fusionblocks import ConvGRUCell
        >>> message, hidden = torch.rand(2, 1, 8, 9, 7)
        >>> ConvGRUCell(8)(message, hidden).shape
        torch.Size([1, 8, 9, 7])
    """

    kind = "map"

    def __init__(self, in_channels: int, hidden_channels: int | None = None, *, kernel_size: int = 1) -> None:
        super().__init__()
        hidden = in_channels if hidden_channels is None else hidden_channels
        check_positive(in_channels=in_channels, hidden_channels=hidden, kernel_size=kernel_size)
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}")
        self.in_channels = in_channels
        self.hidden_channels = self.channels = hidden
        self.gates = nn.Conv2d(in_channels + hidden, 2 * hidden, kernel_size, padding=kernel_size // 2)
        self.candidate = nn.Conv2d(in_channels + hidden, hidden, kernel_size, padding=kernel_size // 2)
        for conv in (self.gates, self.candidate):
            nn.init.normal_(conv.weight, std=0.01)

    def reach(self) -> int | None:
        """Return the rows around a row that are seen, see :func:`fusionblocks.blocks.reach`."""
        return in_a_row(self.gates, self.candidate)

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Update the hidden state.

        Args:
            x: Input ``(B, C_in, H, W)``.
            hidden: Hidden state ``(B, C, H, W)``; ``None``: zeros.

        Returns:
            The next hidden state ``(B, C, H, W)``.
        """
        check_features("x", x, self.in_channels)
        if hidden is None:
            hidden = x.new_zeros(x.shape[0], self.hidden_channels, *x.shape[-2:])
        check_features("hidden", hidden, self.hidden_channels)
        if x.shape[0] != hidden.shape[0] or x.shape[-2:] != hidden.shape[-2:]:
            raise ValueError(
                "x and hidden must have the same batch and spatial size, "
                f"got {tuple(x.shape)} and {tuple(hidden.shape)}"
            )
        reset, update = torch.sigmoid(self.gates(torch.cat([x, hidden], dim=1))).chunk(2, dim=1)
        candidate = torch.tanh(self.candidate(torch.cat([x, reset * hidden], dim=1)))
        return (1 - update) * hidden + update * candidate
