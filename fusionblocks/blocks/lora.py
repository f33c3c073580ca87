"""Low-rank adaptation of a linear layer."""

from __future__ import annotations

import math
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionblocks._support.checks import check_positive


class LoRALinear(nn.Module):
    """A linear layer plus a trainable low-rank update: ``x W^T + b + (alpha / rank) x D^T U^T``.

    ``U`` starts at zero, so that the layer starts as its base; ``W`` and ``b`` are frozen unless asked otherwise.
    The published layer has no factor in its forward pass: it is this one with ``alpha`` equal to ``rank``.

    Args:
        in_features: Width of the input.
        out_features: Width of the output.
        rank: Rank of the update.
        alpha: The update is scaled by ``alpha / rank``.
        bias: Whether the base layer has a bias.
        freeze: Whether the base layer is left out of training.

    Raises:
        ValueError: If a width or the rank is not a positive integer.

    Reference:
        LoRA: Low-Rank Adaptation of Large Language Models (2021).
        SGAFusion: Semantic-Guided Adaptive Fusion for Infrared-Visible Images Under Degradation Conditions (2025),
        class ``LoRALinear``.

    Example:
        >>> import torch
        >>> from fusionblocks import LoRALinear
        >>> layer = LoRALinear(24, 16, rank=4)
        >>> x = torch.rand(3, 24)
        >>> torch.equal(layer(x), layer.linear(x))
        True
        >>> layer.merged()
        Linear(in_features=24, out_features=16, bias=True)
    """

    stands_alone = "takes features in the last dimension"

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        rank: int = 4,
        alpha: float = 1.0,
        bias: bool = True,
        freeze: bool = True,
    ) -> None:
        super().__init__()
        check_positive(in_features=in_features, out_features=out_features, rank=rank)
        self.scale = alpha / rank
        self.linear = nn.Linear(in_features, out_features, bias=bias).requires_grad_(not freeze)
        self.down = nn.Parameter(torch.empty(rank, in_features))
        self.up = nn.Parameter(torch.zeros(out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    @classmethod
    def from_linear(cls, linear: nn.Linear, *, rank: int = 4, alpha: float = 1.0, freeze: bool = True) -> Self:
        """Return a layer that adapts a copy of ``linear``.

        Args:
            linear: The layer to adapt.
            rank: Rank of the update.
            alpha: The update is scaled by ``alpha / rank``.
            freeze: Whether the base layer is left out of training.
        """
        if not isinstance(linear, nn.Linear):
            raise TypeError(f"linear must be a torch.nn.Linear, got {type(linear).__name__}")
        layer = cls(
            linear.in_features,
            linear.out_features,
            rank=rank,
            alpha=alpha,
            bias=linear.bias is not None,
            freeze=freeze,
        )
        layer.linear.load_state_dict(linear.state_dict())
        return layer.to(linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return the adapted projection.

        Args:
            x: Features ``(..., in_features)``.

        Returns:
            Features ``(..., out_features)``.
        """
        width = self.linear.in_features
        if not isinstance(x, Tensor):
            raise TypeError(f"x must be a tensor of shape (..., {width}), got {type(x).__name__}")
        if x.ndim < 1 or x.shape[-1] != width:
            raise ValueError(f"x must have shape (..., {width}), got {tuple(x.shape)}")
        return self.linear(x) + self.scale * F.linear(F.linear(x, self.down), self.up)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Return a new plain linear layer that computes the same."""
        merged = nn.utils.skip_init(
            nn.Linear,
            self.linear.in_features,
            self.linear.out_features,
            bias=self.linear.bias is not None,
            device=self.linear.weight.device,
            dtype=self.linear.weight.dtype,
        )
        merged.weight.copy_(self.linear.weight + self.scale * (self.up @ self.down))
        if self.linear.bias is not None:
            merged.bias.copy_(self.linear.bias)
        return merged

    def extra_repr(self) -> str:
        """Return rank and scale for ``repr``."""
        return f"rank={self.down.shape[0]}, scale={self.scale:g}"
