"""GRDB: a dense block beside a trainable Sobel branch, so that edges survive the convolutions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fusionblocks._support.checks import check_features, check_positive
from fusionblocks.blocks.reaching import in_a_row, side_by_side

SOBEL = ((1.0, 0.0, -1.0), (2.0, 0.0, -2.0), (1.0, 0.0, -1.0))


class GradientResidualDense(nn.Module):
    """Gradient residual dense block (GRDB): dense convolutions plus the magnitude of a trainable Sobel gradient.

    Args:
        channels: Width ``C`` of the feature map.

    Reference:
        "Image fusion in the loop of high-level vision tasks: A semantic-aware real-time infrared and visible image
        fusion network", 2022; "A Semantic-Aware and Multi-Guided Network for Infrared-Visible Image Fusion", 2025
        (published classes ``GRDB_module``, ``RGBD``, ``DenseBlock``, ``Sobelxy``).

    Example:
        >>> import torch
        >>> from fusionblocks import GradientResidualDense
        >>> GradientResidualDense(8)(torch.rand(1, 8, 9, 7)).shape
        torch.Size([1, 8, 9, 7])
    """

    kind = "map"

    def __init__(self, channels: int) -> None:
        super().__init__()
        check_positive(channels=channels)
        self.channels = channels
        self.embed = nn.Conv2d(channels, channels, 3, padding=1)
        self.dense1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.dense2 = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.project_dense = nn.Conv2d(3 * channels, channels, 1)
        # the paper's gradient operator starts as Sobel and is trained with the network
        self.sobel_x = _depthwise(channels, torch.tensor(SOBEL))
        self.sobel_y = _depthwise(channels, torch.tensor(SOBEL).T)
        self.project_gradient = nn.Conv2d(channels, channels, 1)
        self.act = nn.LeakyReLU(0.2)
        self.act_out = nn.LeakyReLU(0.1)

    def reach(self) -> int | None:
        """Return the rows around a row that are seen, see :func:`fusionblocks.blocks.reach`."""
        dense = in_a_row(self.dense1, self.act, self.dense2, self.act, self.project_dense)
        gradient = in_a_row(side_by_side(self.sobel_x, self.sobel_y), self.project_gradient)
        return in_a_row(self.embed, self.act, side_by_side(dense, gradient), self.act_out)

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``(B, C, H, W)`` to ``(B, C, H, W)``."""
        check_features("x", x, self.channels)
        x = self.act(self.embed(x))
        dense = torch.cat([x, self.act(self.dense1(x))], dim=1)
        dense = torch.cat([dense, self.act(self.dense2(dense))], dim=1)
        gradient = self.sobel_x(x).abs() + self.sobel_y(x).abs()
        return self.act_out(self.project_dense(dense) + self.project_gradient(gradient))


def _depthwise(channels: int, kernel: Tensor) -> nn.Conv2d:
    """Return a depthwise 3 x 3 convolution that starts as ``kernel`` in every channel."""
    conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
    with torch.no_grad():
        conv.weight.copy_(kernel)
    return conv
