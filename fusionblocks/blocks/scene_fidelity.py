"""Heads that turn features back into pictures."""

from __future__ import annotations

import torch
from timm.layers import ConvNormAct
from torch import Tensor, nn

from fusionblocks._support.checks import check_divisible, check_features, check_positive
from fusionblocks.blocks.local_global_gate import LocalGlobalGate
from fusionblocks.blocks.reaching import in_a_row


class SceneMask(nn.Module):
    """Mask that keeps what one source scene holds of fused features, then batch norm.

    Args:
        channels: Width ``C`` of the feature map.
        reduction: How many times narrower the global branch is inside.

    Raises:
        ValueError: If ``channels`` is not a multiple of ``reduction``, or ``x`` has another number of channels.

    Reference:
        "Rethinking the necessity of image fusion in high-level vision tasks" (PSFusion), 2023 (published class
        ``S2M``).

    Example:
        >>> import torch
        >>> from fusionblocks import SceneMask
        >>> SceneMask(8).eval()(torch.rand(1, 8, 5, 7)).shape
        torch.Size([1, 8, 5, 7])
    """

    kind = "map"

    def __init__(self, channels: int, *, reduction: int = 4) -> None:
        super().__init__()
        check_divisible("channels", channels, "reduction", reduction)
        self.channels = channels
        local = nn.Sequential(
            ConvNormAct(channels, channels, 3, groups=channels, bias=True),
            ConvNormAct(channels, channels, 3, groups=channels, bias=True),
            ConvNormAct(channels, channels, 3, groups=channels, bias=True, apply_act=False),
        )
        self.gate = LocalGlobalGate(channels, local=local, reduction=reduction)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Mask.

        Args:
            x: Feature map ``(B, C, H, W)``.

        Returns:
            The masked, normalised features ``(B, C, H, W)``.
        """
        check_features("x", x, self.channels)
        return self.norm(x * self.gate(x))


class ImageHead(nn.Module):
    """Convolution and tanh, moved to [0, 1]: features become a picture.

    Args:
        channels: Width ``C`` of the feature map.
        out_channels: Channels of the picture, 1 for luma.

    Raises:
        ValueError: If a size is not positive, or ``x`` has another number of channels.

    Reference:
        "Rethinking the necessity of image fusion in high-level vision tasks" (PSFusion), 2023 (published class
        ``IFP``).

    Example:
        >>> import torch
        >>> from fusionblocks import ImageHead
        >>> ImageHead(8)(torch.rand(1, 8, 5, 7)).shape
        torch.Size([1, 1, 5, 7])
    """

    kind = "head"

    def __init__(self, channels: int, out_channels: int = 1) -> None:
        super().__init__()
        check_positive(channels=channels, out_channels=out_channels)
        self.channels = channels
        self.out_channels = out_channels
        self.conv = nn.Conv2d(channels, out_channels, 3, padding=1)

    def reach(self) -> int | None:
        """Return the rows around a row that are seen, see :func:`fusionblocks.blocks.reach`."""
        return in_a_row(self.conv)

    def forward(self, x: Tensor) -> Tensor:
        """Convert.

        Args:
            x: Feature map ``(B, C, H, W)``.

        Returns:
            The picture ``(B, out_channels, H, W)`` in [0, 1].
        """
        check_features("x", x, self.channels)
        return (torch.tanh(self.conv(x)) + 1) / 2


class SceneFidelityPath(nn.Module):
    """Reconstruction of one source picture from fused features, so that they must keep its information.

    Args:
        channels: Width ``C`` of the fused features.
        out_channels: Channels of the picture, 1 for luma and infrared.
        reduction: How many times narrower the mask's global branch is inside.

    Raises:
        ValueError: If ``channels`` is not a multiple of ``reduction``, or ``x`` has another number of channels.

    Reference:
        "Rethinking the necessity of image fusion in high-level vision tasks" (PSFusion), 2023 (published class
        ``SFP``).

    Example:
        >>> import torch
        >>> from fusionblocks import SceneFidelityPath
        >>> SceneFidelityPath(8).eval()(torch.rand(1, 8, 5, 7)).shape
        torch.Size([1, 1, 5, 7])
    """

    kind = "head"

    def __init__(self, channels: int, out_channels: int = 1, *, reduction: int = 4) -> None:
        super().__init__()
        self.channels = channels
        self.out_channels = out_channels
        self.mask = SceneMask(channels, reduction=reduction)
        self.head = ImageHead(channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct.

        Args:
            x: Feature map ``(B, C, H, W)``.

        Returns:
            The picture ``(B, out_channels, H, W)`` in [0, 1].
        """
        return self.head(self.mask(x))
