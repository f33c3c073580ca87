"""Funnel activation."""

from __future__ import annotations

import torch
from timm.layers import ConvNormAct
from torch import Tensor, nn

from fusionblocks._support.checks import check_features, check_positive
from fusionblocks.blocks.reaching import in_a_row


class FReLU(nn.Module):
    """Funnel activation: the larger of a value and a depthwise convolution around it.

    Args:
        channels: Width ``C`` of the feature map.
        kernel_size: Side of the window that the condition sees, in pixels, odd.

    Raises:
        ValueError: If a size is not positive, ``kernel_size`` is even, or ``x`` has another number of channels.

    Reference:
        "Funnel Activation for Visual Recognition", 2020; as in PSFusion, 2023 (published class ``FReLU``).

    Example:
        >>> import torch
        >>> from fusionblocks import FReLU
        >>> FReLU(8)(torch.rand(1, 8, 5, 7)).shape
        torch.Size([1, 8, 5, 7])
    """

    kind = "map"

    def __init__(self, channels: int, *, kernel_size: int = 3) -> None:
        super().__init__()
        check_positive(channels=channels, kernel_size=kernel_size)
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}")
        self.channels = channels
        self.condition = ConvNormAct(channels, channels, kernel_size, groups=channels, bias=True, apply_act=False)

    def reach(self) -> int | None:
        """Return the rows around a row that are seen, see :func:`fusionblocks.blocks.reach`."""
        return in_a_row(self.condition)

    def forward(self, x: Tensor) -> Tensor:
        """Activate.

        Args:
            x: Feature map ``(B, C, H, W)``.

        Returns:
            The activated map ``(B, C, H, W)``.
        """
        check_features("x", x, self.channels)
        return torch.maximum(x, self.condition(x))
