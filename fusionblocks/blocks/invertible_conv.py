"""The invertible 1 x 1 convolution that mixes all channels before a coupling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from fusionblocks._support.checks import check_features, check_positive
from fusionblocks.blocks.reaching import of_convolution


class InvertibleConv1x1(nn.Conv2d):
    """A 1 x 1 convolution from ``C`` to ``C`` channels with its exact inverse.

    Args:
        channels: Width ``C``.

    Reference:
        "Glow: Generative Flow with Invertible 1x1 Convolutions", 2018; "A Semantic-Aware and Multi-Guided Network for
        Infrared-Visible Image Fusion", 2025 (published as ``shffleconv``).

    Example:
        >>> import torch
        >>> from fusionblocks import InvertibleConv1x1
        >>> _ = torch.manual_seed(0)
        >>> conv, x = InvertibleConv1x1(6).double(), torch.rand(1, 6, 4, 5).double()
        >>> torch.allclose(conv.inverse(conv(x)), x)
        True
    """

    kind = "map"

    bias: Tensor

    def __init__(self, channels: int) -> None:
        check_positive(channels=channels)
        super().__init__(channels, channels, 1)
        self.channels = channels

    def reach(self) -> int | None:
        """Return the rows around a row that are seen, see :func:`fusionblocks.blocks.reach`."""
        return of_convolution(self)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the channels of ``(B, C, H, W)``."""
        check_features("x", x, self.in_channels)
        return super().forward(x)

    def inverse(self, y: Tensor) -> Tensor:
        """Return the ``x`` whose mixed channels are ``y``.

        The linear system is solved in the dtype of ``y`` (float32 for half-precision input).

        Args:
            y: Feature map ``(B, C, H, W)``.

        Returns:
            Feature map ``(B, C, H, W)``.

        Raises:
            ValueError: If the channel matrix is singular in that dtype.
        """
        check_features("y", y, self.in_channels)
        dtype = y.dtype if y.dtype in (torch.float32, torch.float64) else torch.float32
        matrix = rearrange(self.weight, "c_out c_in 1 1 -> c_out c_in").to(dtype)
        centred = y.to(dtype) - rearrange(self.bias, "c -> c 1 1").to(dtype)
        condition = torch.linalg.cond(matrix.detach().double()).item()
        if not condition < 1 / torch.finfo(dtype).eps:
            raise ValueError(
                f"the {self.in_channels} x {self.in_channels} channel matrix of the mixing convolution is singular in "
                f"{dtype} (condition number {condition:.1e}), so it has no inverse"
            )
        # solving once for the inverse matrix keeps the large feature map out of the solver
        inverse = torch.linalg.solve(matrix, torch.eye(self.in_channels, dtype=dtype, device=matrix.device))
        return F.conv2d(centred, rearrange(inverse, "c_out c_in -> c_out c_in 1 1")).to(y.dtype)


def split_channels(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first and the second half of the channels."""
    first, second = x.chunk(2, dim=1)
    return first, second
