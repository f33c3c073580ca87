"""Experts that undo what haze and darkness do to visible features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionblocks._support.checks import check_features, check_positive
from fusionblocks.blocks.mixture_of_experts import MixtureOfExperts
from fusionblocks.blocks.reaching import in_a_row


class DehazeExpert(nn.Module):
    """Inverts the atmospheric scattering model with an estimated transmission map and airlight.

    Hazy features are ``I = J t + A (1 - t)``; the expert estimates the transmission ``t`` at every pixel and one
    airlight ``A`` an image, and answers ``J = (I - A) / max(t, floor) + A``.

    Args:
        channels: Channels of the feature map.
        pool_size: Side of the grid that features are averaged to before the airlight is read from them.
        airlight_channels: Width of the airlight's hidden layer.
        min_transmission: Floor of the transmission in (0, 1], which bounds how much is amplified.

    Raises:
        ValueError: If a size is not a positive integer or ``min_transmission`` is outside (0, 1].

    Reference:
        SGAFusion: Semantic-Guided Adaptive Fusion for Infrared-Visible Images Under Degradation Conditions (2025),
        class ``DehazeNet`` with ``dehaze_image``.

    Example:
        >>> import torch
        >>> from fusionblocks import DehazeExpert
        >>> expert = DehazeExpert(8, pool_size=4)
        >>> x = torch.rand(2, 8, 9, 7)
        >>> transmission, airlight = expert.estimate(x)
        >>> transmission.shape, airlight.shape, expert(x).shape
        (torch.Size([2, 1, 9, 7]), torch.Size([2, 1]), torch.Size([2, 8, 9, 7]))
    """

    kind = "map"

    def __init__(
        self,
        channels: int = 16,
        *,
        pool_size: int = 32,
        airlight_channels: int = 256,
        min_transmission: float = 0.1,
    ) -> None:
        super().__init__()
        check_positive(channels=channels, pool_size=pool_size, airlight_channels=airlight_channels)
        if not 0 < min_transmission <= 1:
            raise ValueError(f"min_transmission must be in (0, 1], got {min_transmission!r}")
        self.channels = channels
        self.pool_size = pool_size
        self.min_transmission = min_transmission
        hidden = 2 * channels
        self.context = nn.Conv2d(channels, hidden, 3, padding=1)
        self.expand = nn.Conv2d(hidden, 2 * hidden, 1)
        self.reduce = nn.Conv2d(2 * hidden, hidden, 1)
        self.head = nn.Conv2d(hidden, 1, 1)
        self.airlight_hidden = nn.Linear(hidden * pool_size**2, airlight_channels)
        self.airlight = nn.Linear(airlight_channels, 1)
        self.act = nn.LeakyReLU()

    def estimate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the haze that the expert sees.

        Args:
            x: Features ``(B, channels, H, W)``.

        Returns:
            The transmission map ``(B, 1, H, W)`` and the airlight ``(B, 1)``, both in (0, 1).
        """
        check_features("x", x, self.channels)
        x = self.act(self.context(x))
        x = self.act(self.expand(x))
        x = self.act(self.reduce(x))
        transmission = torch.sigmoid(self.head(x))
        pooled = F.adaptive_avg_pool2d(x, self.pool_size).flatten(1)
        airlight = torch.sigmoid(self.airlight(torch.sigmoid(self.airlight_hidden(pooled))))
        return transmission, airlight

    def forward(self, x: Tensor) -> Tensor:
        """Return the features without the estimated haze.

        Args:
            x: Features ``(B, channels, H, W)``.

        Returns:
            Features of the same shape.
        """
        transmission, airlight = self.estimate(x)
        airlight = airlight[:, :, None, None]
        return (x - airlight) / transmission.clamp(min=self.min_transmission) + airlight


class LowLightExpert(nn.Module):
    """Brightens features step by step along estimated quadratic curves, and adds the input back.

    Each step moves ``x`` to ``x + s (x^2 - x + 1e-6)``, clamped to [0, 1], with its own map ``s`` in (0, 1).

    Args:
        channels: Channels of the feature map.
        iterations: Steps along the curve, one map each.

    Raises:
        ValueError: If an argument is not a positive integer.

    Reference:
        SGAFusion: Semantic-Guided Adaptive Fusion for Infrared-Visible Images Under Degradation Conditions (2025),
        class ``Low_enhance_net`` with ``low_enhance_image``.

    Example:
        >>> import torch
        >>> from fusionblocks import LowLightExpert
        >>> LowLightExpert(8, iterations=4)(torch.rand(2, 8, 9, 7)).shape
        torch.Size([2, 8, 9, 7])
    """

    kind = "map"

    def __init__(self, channels: int = 16, *, iterations: int = 8) -> None:
        super().__init__()
        check_positive(channels=channels, iterations=iterations)
        self.channels = channels
        self.expand = nn.Conv2d(channels, 2 * channels, 3, padding=1)
        self.reduce = nn.Conv2d(2 * channels, channels, 1)
        self.head = nn.Conv2d(channels, iterations, 1)
        self.act = nn.LeakyReLU()

    def curves(self, x: Tensor) -> Tensor:
        """Return the strength of each step at each pixel.

        Args:
            x: Features ``(B, channels, H, W)``.

        Returns:
            Strengths ``(B, iterations, H, W)`` in (0, 1).
        """
        check_features("x", x, self.channels)
        x = self.act(self.expand(x))
        x = self.act(self.reduce(x))
        return torch.sigmoid(self.act(self.head(x)))

    def reach(self) -> int | None:
        """Return the rows around a row that are seen, see :func:`fusionblocks.blocks.reach`."""
        return in_a_row(self.expand, self.act, self.reduce, self.act, self.head, self.act)

    def forward(self, x: Tensor) -> Tensor:
        """Return the enhanced features plus the features themselves.

        Args:
            x: Features ``(B, channels, H, W)``.

        Returns:
            Features of the same shape.
        """
        enhanced = x
        for strength in self.curves(x).split(1, dim=1):
            enhanced = (enhanced + strength * (enhanced * enhanced - enhanced + 1e-6)).clamp(0, 1)
        return enhanced + x


class DegradationExperts(MixtureOfExperts):
    """Mixes a dehazing expert, a low-light expert and a plain 1x1 convolution by a per-pixel gate.

    Args:
        channels: Channels of the feature map.
        iterations: Steps of the low-light expert.
        pool_size: Airlight grid of the dehazing expert.
        min_transmission: Transmission floor of the dehazing expert.
        negative_slope: Slope of the final leaky ReLU for negative values.

    Raises:
        ValueError: If a size is not a positive integer or ``min_transmission`` is outside (0, 1].

    Reference:
        SGAFusion: Semantic-Guided Adaptive Fusion for Infrared-Visible Images Under Degradation Conditions (2025),
        class ``MoEAdapter_shallow``.

    Example:
        >>> import torch
        >>> from fusionblocks import DegradationExperts
        >>> experts = DegradationExperts(8, pool_size=4)
        >>> x = torch.rand(1, 8, 9, 7)
        >>> haze, dark, base = experts.gate(x).unbind(1)
        >>> experts(x).shape, haze.shape
        (torch.Size([1, 8, 9, 7]), torch.Size([1, 9, 7]))
    """

    def __init__(
        self,
        channels: int = 16,
        *,
        iterations: int = 8,
        pool_size: int = 32,
        min_transmission: float = 0.1,
        negative_slope: float = 0.01,
    ) -> None:
        check_positive(channels=channels)
        super().__init__(
            channels,
            negative_slope=negative_slope,
            experts=[
                DehazeExpert(channels, pool_size=pool_size, min_transmission=min_transmission),
                LowLightExpert(channels, iterations=iterations),
                nn.Conv2d(channels, channels, 1),
            ],
            names=("dehaze", "low light", "base"),
        )
