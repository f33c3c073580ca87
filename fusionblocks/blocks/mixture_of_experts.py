"""Experts whose answers a per-pixel gate mixes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fusionblocks._support.checks import check_features, check_positive
from fusionblocks.blocks.reaching import in_a_row, side_by_side


class UniNet(nn.Module):
    """One expert: a 3x3 bottleneck that is left as an expert's whole answer, without a residual.

    Args:
        channels: Channels of the feature map.
        reduction: The bottleneck has ``channels // reduction`` channels, at least one.

    Raises:
        ValueError: If an argument is not a positive integer.

    Shape:
        ``(B, channels, H, W)`` to the same.

    Reference:
        SGAFusion: Semantic-Guided Adaptive Fusion for Infrared-Visible Images Under Degradation Conditions (2025),
        one of the ``experts`` of class ``MoEAdapter``.

    Example:
        >>> import torch
        >>> from fusionblocks import UniNet
        >>> UniNet(16)(torch.rand(1, 16, 9, 7)).shape
        torch.Size([1, 16, 9, 7])
    """

    kind = "map"

    def __init__(self, channels: int, *, reduction: int = 8) -> None:
        super().__init__()
        check_positive(channels=channels, reduction=reduction)
        hidden = max(1, channels // reduction)
        self.channels = channels
        self.reduce = nn.Conv2d(channels, hidden, 3, padding=1)
        self.expand = nn.Conv2d(hidden, channels, 3, padding=1)
        self.act = nn.LeakyReLU()

    def reach(self) -> int | None:
        """Return the rows around a row that are seen, see :func:`fusionblocks.blocks.reach`."""
        return in_a_row(self.reduce, self.act, self.expand, self.act)

    def forward(self, x: Tensor) -> Tensor:
        """Return the expert's answer.

        Args:
            x: Features ``(B, channels, H, W)``.

        Returns:
            Features of the same shape.
        """
        check_features("x", x, self.channels)
        return self.act(self.expand(self.act(self.reduce(x))))


class MixtureOfExperts(nn.Module):
    """Sums the answers of several experts, weighted at every pixel by a softmax gate.

    Any modules that keep the shape ``(B, channels, H, W)`` can serve as experts; without them, all are
    :class:`UniNet`.

    Args:
        channels: Channels of the feature map.
        num_experts: How many :class:`UniNet` experts to make; ignored when ``experts`` are given.
        reduction: Bottleneck reduction of each :class:`UniNet`.
        negative_slope: Slope of the final leaky ReLU for negative values.
        experts: Modules to use as experts.
        names: What each expert is called in reports; by default ``"expert 1"``, ``"expert 2"``, ...

    Raises:
        ValueError: If a size is not a positive integer, ``experts`` is empty, or there is not one name an expert.

    Reference:
        SGAFusion: Semantic-Guided Adaptive Fusion for Infrared-Visible Images Under Degradation Conditions (2025),
        class ``MoEAdapter``.

    Example:
        >>> import torch
        >>> from fusionblocks import MixtureOfExperts, UniNet
        >>> from torch import nn
        >>> mixture = MixtureOfExperts(16, num_experts=3)
        >>> x = torch.rand(1, 16, 9, 7)
        >>> mixture(x).shape, mixture.gate(x).shape
        (torch.Size([1, 16, 9, 7]), torch.Size([1, 3, 9, 7]))
        >>> mixture = MixtureOfExperts(16, experts=[nn.Identity(), UniNet(16)])
        >>> mixture(x).shape
        torch.Size([1, 16, 9, 7])
    """

    kind = "map"

    def __init__(
        self,
        channels: int,
        *,
        num_experts: int = 2,
        reduction: int = 8,
        negative_slope: float = 0.2,
        experts: Sequence[nn.Module] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        check_positive(channels=channels, num_experts=num_experts, reduction=reduction)
        if experts is None:
            experts = [UniNet(channels, reduction=reduction) for _ in range(num_experts)]
        if len(experts) == 0:
            raise ValueError("experts must hold at least one module, got none")
        if names is None:
            names = [f"expert {i + 1}" for i in range(len(experts))]
        if len(names) != len(experts):
            raise ValueError(f"names must hold one name for each of {len(experts)} experts, got {len(names)}")
        self.channels = channels
        self.names = tuple(names)
        self.experts = nn.ModuleList(experts)
        self.gating = nn.Conv2d(channels, len(experts), 1)
        self.act = nn.LeakyReLU(negative_slope)

    def gate(self, x: Tensor) -> Tensor:
        """Return how much each expert counts at each pixel.

        Args:
            x: Features ``(B, channels, H, W)``.

        Returns:
            Weights ``(B, experts, H, W)`` that sum to one over the experts.
        """
        check_features("x", x, self.channels)
        return torch.softmax(self.gating(x), dim=1)

    def reach(self) -> int | None:
        """Return the rows around a row that are seen, see :func:`fusionblocks.blocks.reach`."""
        return in_a_row(side_by_side(self.gating, *self.experts), self.act)

    def forward(self, x: Tensor) -> Tensor:
        """Return the gated sum of the experts' answers, activated.

        Args:
            x: Features ``(B, channels, H, W)``.

        Returns:
            Features of the same shape.
        """
        weights = self.gate(x).split(1, dim=1)
        mixed = weights[0] * self.experts[0](x)
        for weight, expert in zip(weights[1:], self.experts[1:], strict=True):
            mixed = mixed + weight * expert(x)
        return self.act(mixed)
