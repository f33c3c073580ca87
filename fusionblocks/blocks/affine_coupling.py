"""Affine coupling: two halves scale and shift each other, and every step can be undone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fusionblocks._support.checks import check_alike, check_divisible
from fusionblocks.blocks.inverted_residual import InvertedResidual
from fusionblocks.blocks.invertible_conv import InvertibleConv1x1, split_channels
from fusionblocks.blocks.reaching import in_a_row, side_by_side


class AffineCoupling(nn.Module):
    """Invertible block: mixes the channels of both halves, then lets each half scale and shift the other.

    With ``e(s) = exp(clamp * 2 * (sigmoid(s) - 1/2))`` and the subnets ``phi, psi, rho, eta`` the coupling is
    ``y1 = e(psi(x2)) x1 + phi(x2)``, ``y2 = e(rho(y1)) x2 + eta(y1)``; ``reverse`` runs it the other way round.

    Args:
        channels: Width ``C`` of both halves together, an even number.
        clamp: Bound of the exponent: scales lie between ``exp(-clamp)`` and ``exp(clamp)``.
        reverse: Run the coupling backwards in ``forward`` and forwards in ``inverse``, as SMFNet does.
        expand_ratio: Hidden channels of the subnets for each of their input channels.

    Raises:
        ValueError: If ``channels`` is not even.

    Reference:
        "A Semantic-Aware and Multi-Guided Network for Infrared-Visible Image Fusion", 2025 (published class
        ``INV_block_affine``).

    Example:
        >>> import torch
        >>> from fusionblocks import AffineCoupling
        >>> _ = torch.manual_seed(0)
        >>> coupling = AffineCoupling(8).double()
        >>> first, second = torch.rand(2, 1, 4, 9, 7).double()
        >>> restored, _ = coupling.inverse(*coupling(first, second))
        >>> torch.allclose(restored, first)
        True
    """

    kind = "exchange"

    def __init__(self, channels: int, *, clamp: float = 2.0, reverse: bool = True, expand_ratio: float = 2) -> None:
        super().__init__()
        check_divisible("channels", channels, "the number of halves", 2)
        half = channels // 2
        self.channels = channels
        self.half_channels = half
        self.clamp = clamp
        self.reverse = reverse
        self.mix = InvertibleConv1x1(channels)
        self.shift_first = InvertedResidual(half, expand_ratio=expand_ratio)  # phi
        self.scale_first = InvertedResidual(half, expand_ratio=expand_ratio)  # psi
        self.shift_second = InvertedResidual(half, expand_ratio=expand_ratio)  # eta
        self.scale_second = InvertedResidual(half, expand_ratio=expand_ratio)  # rho

    def reach(self) -> int | None:
        """Return the rows around a row that are seen, see :func:`fusionblocks.blocks.reach`."""
        second = side_by_side(self.shift_second, self.scale_second)
        return in_a_row(self.mix, second, side_by_side(self.shift_first, self.scale_first))

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
        return self._uncouple(first, second) if self.reverse else self._couple(first, second)

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
        first, second = self._couple(first, second) if self.reverse else self._uncouple(first, second)
        return split_channels(self.mix.inverse(torch.cat([first, second], dim=1)))

    def _couple(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        first = first * self._gain(self.scale_first(second)) + self.shift_first(second)
        second = second * self._gain(self.scale_second(first)) + self.shift_second(first)
        return first, second

    def _uncouple(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        second = (second - self.shift_second(first)) / self._gain(self.scale_second(first))
        first = (first - self.shift_first(second)) / self._gain(self.scale_first(second))
        return first, second

    def _gain(self, scale: Tensor) -> Tensor:
        return torch.exp(self.clamp * 2 * (torch.sigmoid(scale) - 0.5))

    def _check(self, first: Tensor, second: Tensor) -> None:
        check_alike(self.half_channels, first=first, second=second)
