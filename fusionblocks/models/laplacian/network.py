"""The classical baseline: fusion of two Laplacian pyramids, without weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fusionblocks.blocks.by_rows import must_own
from fusionblocks.image import gaussian_blur, gaussian_kernel, laplacian_pyramid, luma, max_levels, reconstruct
from fusionblocks.image.checks import check_pair
from fusionblocks.image.rows import Rows
from fusionblocks.models.base import FusionModel, FusionOutput


@dataclass(frozen=True)
class LaplacianConfig:
    """Settings of :class:`Laplacian`.

    Args:
        levels: Bands of the pyramid; fewer are used where the picture is too small for them.
        window: Standard deviation in pixels of the neighbourhood whose energy decides which source a detail
            comes from.
    """

    levels: int = 5
    window: float = 1.5

    def __post_init__(self) -> None:
        if not isinstance(self.levels, int) or self.levels < 1:
            raise ValueError(f"levels must be a positive integer, got {self.levels!r}")
        if not self.window > 0:
            raise ValueError(f"window must be a positive number of pixels, got {self.window!r}")


class Laplacian(FusionModel):
    """Laplacian-pyramid fusion: each detail from the source where it is stronger, the coarsest level from both.

    Args:
        config: Its settings.
        **options: Fields of :class:`LaplacianConfig` to replace.

    Raises:
        TypeError: If an option is unknown.
        ValueError: If an option is out of range.

    Reference:
        The Laplacian Pyramid as a Compact Image Code (1983); Enhanced image capture through fusion (1993).

    Example:
        >>> import torch
        >>> from fusionblocks import Laplacian
        >>> output = Laplacian(levels=3)(torch.rand(1, 1, 33, 50), torch.rand(1, 3, 33, 50))
        >>> output.fused.shape
        torch.Size([1, 1, 33, 50])
    """

    name: ClassVar[str] = "laplacian"
    config_class: ClassVar[type] = LaplacianConfig
    config: LaplacianConfig
    paper: ClassVar[str] = "Burt & Adelson 1983; Burt & Kolczynski 1993"
    license_note: ClassVar[str] = "no weights"

    def __init__(self, config: LaplacianConfig | None = None, **options: Any) -> None:
        super().__init__(config, **options)

    def forward(self, infrared: Tensor, visible: Tensor) -> FusionOutput:
        """Fuse a pair.

        Args:
            infrared: ``(B, 1, H, W)`` in [0, 1].
            visible: ``(B, 3, H, W)`` RGB or ``(B, 1, H, W)`` luma in [0, 1].

        Returns:
            The fused luma ``(B, 1, H, W)``.
        """
        check_pair(infrared, visible, visible_channels=(1, 3))
        levels = self._levels(*infrared.shape[-2:])
        return FusionOutput(fused=self._fuse(infrared, luma(visible) if visible.shape[1] == 3 else visible, levels))

    def by_rows(self, infrared: Rows, visible: Rows) -> Rows:
        """Return the fused luma of a pair by rows, see :meth:`FusionModel.by_rows`."""
        must_own(self, "by_rows")
        levels = self._levels(infrared.shape.height, infrared.shape.width)
        # a row of a detail is made of what the blur sees of two neighbouring levels, and is spread over all finer ones
        radius = gaussian_kernel(self.config.window).shape[0] // 2
        reach = max([2 ** (level - 1) * (radius + 8) for level in range(1, levels)], default=0)
        return infrared.map(
            lambda infrared, visible: self._fuse(infrared, luma(visible), levels),
            visible,
            reach=reach,
            step=2 ** (levels - 1),
        )

    def _levels(self, height: int, width: int) -> int:
        if torch.compiler.is_exporting():  # all levels, of which those that a size has not are passed over
            return self.config.levels
        return min(self.config.levels, max_levels(height, width))

    def _fuse(self, infrared: Tensor, visible: Tensor, levels: int) -> Tensor:
        *thermal, warm = laplacian_pyramid(infrared, levels)
        *reflected, lit = laplacian_pyramid(visible, levels)
        details = [self._stronger(a, b) for a, b in zip(thermal, reflected, strict=True)]
        if torch.compiler.is_exporting():
            means = [(a + b) / 2 for a, b in zip(thermal, reflected, strict=True)]
            details = [torch.where(_has_level(x), x, mean) for x, mean in zip(details, means, strict=True)]
        return reconstruct([*details, (warm + lit) / 2])

    def _stronger(self, infrared: Tensor, visible: Tensor) -> Tensor:
        """Take each detail from the source whose neighbourhood holds more energy."""
        energy_infrared = gaussian_blur(infrared.square(), self.config.window)
        energy_visible = gaussian_blur(visible.square(), self.config.window)
        return torch.where(energy_infrared > energy_visible, infrared, visible)


def _has_level(detail: Tensor) -> Tensor:
    """Return whether both sides of a level are longer than a pixel, in arithmetic that leaves them open."""
    height, width = (1 - 2 // (side + 1) for side in detail.shape[-2:])
    return torch.full((1,), height * width, dtype=torch.int64, device=detail.device) > 0
