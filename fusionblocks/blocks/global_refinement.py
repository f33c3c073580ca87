"""Global refinement: graph features modulated by the detail and base features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fusionblocks._support.checks import check_alike, check_positive
from fusionblocks.blocks.reaching import in_a_row, side_by_side


class GlobalRefinement(nn.Module):
    """Global refinement module (GRM): detail and base features scale and shift the graph features.

    Args:
        channels: Width ``C`` of each of the three feature maps.

    Reference:
        "A Semantic-Aware and Multi-Guided Network for Infrared-Visible Image Fusion", 2025 (published class ``GRM``,
        which the published network leaves out).

    Example:
        >>> import torch
        >>> from fusionblocks import GlobalRefinement
        >>> detail, base, graph = torch.rand(3, 1, 8, 9, 7)
        >>> GlobalRefinement(8)(detail, base, graph).shape
        torch.Size([1, 8, 9, 7])
    """

    stands_alone = "takes three maps"

    def __init__(self, channels: int) -> None:
        super().__init__()
        check_positive(channels=channels)
        self.channels = channels
        self.scale = nn.Sequential(
            nn.Conv2d(2 * channels, 2 * channels, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(2 * channels, 2 * channels, 3, padding=1),
        )
        self.shift = nn.Sequential(
            nn.Conv2d(2 * channels, 2 * channels, 1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(2 * channels, channels, 1),
        )
        self.modulate = nn.Sequential(nn.Conv2d(3 * channels, channels, 3, padding=1), nn.LeakyReLU())

    def reach(self) -> int | None:
        """Return the rows around a row that are seen, see :func:`fusionblocks.blocks.reach`."""
        return side_by_side(in_a_row(self.scale, self.modulate), self.modulate, self.shift)

    def forward(self, detail: Tensor, base: Tensor, graph: Tensor) -> Tensor:
        """Refine the graph features.

        Args:
            detail: Detail features ``(B, C, H, W)``.
            base: Base features ``(B, C, H, W)``.
            graph: Graph features ``(B, C, H, W)``.

        Returns:
            Refined features ``(B, C, H, W)``.
        """
        check_alike(self.channels, detail=detail, base=base, graph=graph)
        condition = torch.cat([detail, base], dim=1)
        modulated = self.modulate(torch.cat([graph, self.scale(condition)], dim=1))
        return modulated + self.shift(condition)
