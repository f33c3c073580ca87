"""The library's own small network: blocks decide how to mix, the sources supply every pixel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionblocks.blocks import CAI, GradientResidualDense, TransformerBlock
from fusionblocks.blocks.by_rows import must_own, run
from fusionblocks.image import gaussian_blur, gaussian_kernel, luma
from fusionblocks.image.checks import check_pair
from fusionblocks.image.rows import Map, Rows, Shape, each, keep
from fusionblocks.models.base import FusionModel, FusionOutput

MOST_KEPT = 1.25e9
"""Bytes of the features of both modalities up to which they are held when a picture is fused by rows."""
FLAT = 16 / 255
"""Span of a pair, from its darkest to its brightest pixel, below which ever less is added to the brighter source."""


@dataclass(frozen=True)
class FusionBlocksConfig:
    """Widths of :class:`FusionBlocksNet`.

    Args:
        channels: Width ``C`` of the features of each modality, a multiple of ``num_heads``.
        num_heads: Heads of the channel attention.
        scale: How many times smaller the features are than the picture.
        margin: Rows and columns of features that are repeated around the picture, so that its edge looks like its
            middle to the convolutions.
        detail_sigma: Standard deviation in pixels of the blur that tells a source's fine detail from the rest.
    """

    channels: int = 24
    num_heads: int = 4
    scale: int = 2
    margin: int = 8
    detail_sigma: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.scale, int) or self.scale < 1:
            raise ValueError(f"scale must be a positive integer, got {self.scale!r}")
        if not isinstance(self.margin, int) or self.margin < 0:
            raise ValueError(f"margin must be an integer of at least 0, got {self.margin!r}")
        if not self.detail_sigma > 0:
            raise ValueError(f"detail_sigma must be a positive number of pixels, got {self.detail_sigma!r}")


class FusionBlocksNet(FusionModel):
    """The network that the library trained itself: small, and its result is made of the sources' own pixels.

    Features at half the size see what is where; from them the head reads, for every place, how much of each of five
    pictures to add to the brighter source: both sources, the brighter one, and the fine detail of both. These weights
    are smooth, so the network can lift contrast and choose a source, but cannot invent texture. Nor can it change the
    level of a flat pair: with less than 16 of 255 levels between its darkest and its brightest pixel, the part that is
    added shrinks with what there is, to nothing for a constant pair.

    ``create_model("fusionblocks")`` comes with trained weights; this class by itself starts from fresh ones, with which
    it returns the brighter source.

    Args:
        config: Its widths.
        **options: Fields of :class:`FusionBlocksConfig` to replace.

    Raises:
        TypeError: If an option is unknown.
        ValueError: If a width does not fit.

    Reference:
        The blocks are those of "A Semantic-Aware and Multi-Guided Network for Infrared-Visible Image Fusion", 2025; the
        network is this library's.

    Example:
        >>> import torch
        >>> from fusionblocks import FusionBlocksNet
        >>> output = FusionBlocksNet(channels=8)(torch.rand(1, 1, 33, 50), torch.rand(1, 3, 33, 50))
        >>> output.fused.shape
        torch.Size([1, 1, 33, 50])
    """

    name: ClassVar[str] = "fusionblocks"
    config_class: ClassVar[type] = FusionBlocksConfig
    config: FusionBlocksConfig
    packaged_digest: ClassVar[str] = "737ed185edb8f59f39bd1d10dccd73117819bbba0e366b2baffc3ab22581bcd7"
    paper: ClassVar[str] = "of this library, 2026; blocks of SMFNet 2025"
    license_note: ClassVar[str] = "MIT; trained on RoadScene, MSRS, M3FD and LLVIP, research data of their publishers"

    def __init__(self, config: FusionBlocksConfig | None = None, **options: Any) -> None:
        super().__init__(config, **options)
        channels, scale = self.config.channels, self.config.scale
        self.stem = nn.Conv2d(scale * scale, channels, 3, padding=1)
        self.edges = GradientResidualDense(channels)
        self.exchange = CAI(2 * channels, num_heads=self.config.num_heads)
        self.merge = nn.Conv2d(2 * channels, channels, 1)
        self.context = TransformerBlock(channels, num_heads=self.config.num_heads)
        self.head = nn.Conv2d(channels, 6, 3, padding=1)
        # an untrained network adds nothing to the brighter source
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def forward(self, infrared: Tensor, visible: Tensor) -> FusionOutput:
        """Fuse a pair.

        Args:
            infrared: ``(B, 1, H, W)`` in [0, 1].
            visible: ``(B, 3, H, W)`` RGB or ``(B, 1, H, W)`` luma in [0, 1].

        Returns:
            The fused luma ``(B, 1, H, W)``.
        """
        check_pair(infrared, visible, visible_channels=(1, 3))
        return FusionOutput(fused=self._fuse(infrared, luma(visible) if visible.shape[1] == 3 else visible))

    def by_rows(self, infrared: Rows, visible: Rows) -> Rows:
        """Return the fused luma of a pair by rows, see :meth:`FusionModel.by_rows`."""
        must_own(self, "by_rows")
        return self._fuse(infrared, visible.map(luma))

    def _fuse(self, infrared: Map, visible: Map) -> Map:
        # one encoder for both modalities, which then see each other
        # by rows, what is most of the work is kept if there is room, else worked out twice
        both = keep(run(self.edges, run(self.stem, self._shrink(infrared, visible))), MOST_KEPT)
        both = run(self.exchange, each(lambda both: torch.cat(both.chunk(2), dim=1), both))
        features = run(self.context, keep(run(self.merge, both)))
        return self._blend(run(self.head, features), infrared, visible)

    def _shrink(self, infrared: Map, visible: Map) -> Map:
        """Return both, one after the other, with a margin and each square of pixels as channels."""
        scale, margin = self.config.scale, self.config.margin

        def shrink(infrared: Tensor, visible: Tensor, above: int, below: int) -> Tensor:
            padding = (scale * margin, scale * margin + (-infrared.shape[-1]) % scale, above, below)
            return F.pixel_unshuffle(F.pad(torch.cat([infrared, visible]), padding, mode="replicate"), scale)

        if isinstance(infrared, Tensor):
            return shrink(infrared, visible, scale * margin, scale * margin + (-infrared.shape[-2]) % scale)
        batch, height, width = infrared.shape
        smaller = Shape(2 * batch, *(-(-side // scale) + 2 * margin for side in (height, width)))

        def read(first: int, last: int) -> Tensor:
            rows = range((first - margin) * scale, (last - margin) * scale)
            return shrink(infrared.read_repeated(rows), visible.read_repeated(rows), 0, 0)

        return Rows(read, smaller, infrared.strip // scale)

    def _blend(self, weights: Map, infrared: Map, visible: Map) -> Map:
        """Return the brighter source plus a weighted sum of pictures; the weights are small and have a margin."""
        scale, sigma = self.config.scale, self.config.detail_sigma
        border = scale * self.config.margin

        def blend(weights: Tensor, infrared: Tensor, visible: Tensor, top: int, share: Tensor) -> Tensor:
            height, width = infrared.shape[-2:]
            weights = F.interpolate(weights, scale_factor=scale, mode="bilinear")
            weights = weights[..., top : top + height, border : border + width]
            brighter = torch.maximum(infrared, visible)
            details = (picture - gaussian_blur(picture, sigma) for picture in (infrared, visible))
            pictures = torch.cat([infrared, visible, brighter, *details, torch.ones_like(brighter)], dim=1)
            return brighter + share * (weights * pictures).sum(dim=1, keepdim=True)

        if isinstance(infrared, Tensor):
            return blend(weights, infrared, visible, border, _contrast(_extremes(infrared, visible)))

        @cache
        def share() -> Tensor:
            pairs = zip(infrared.strips(), visible.strips(), strict=True)
            return _contrast(torch.cat([_extremes(a, b) for (_, a), (_, b) in pairs], dim=1))

        reach = gaussian_kernel(sigma).shape[0] // 2

        def read(first: int, last: int) -> Tensor:
            above, below = max(first - reach, 0), min(last + reach, infrared.shape.height)
            # a row between two rows of weights is made of both
            small_above = max((above + border) // scale - 1, 0)
            small_below = min((below + border - 1) // scale + 2, weights.shape.height)
            pair = infrared.read(above, below), visible.read(above, below)
            fused = blend(weights.read(small_above, small_below), *pair, above + border - small_above * scale, share())
            return fused[:, :, first - above : last - above]

        return Rows(read, infrared.shape, infrared.strip)


def _extremes(infrared: Tensor, visible: Tensor) -> Tensor:
    """Return the darkest and the brightest values of both maps, ``(B, 4)``."""
    return torch.cat([f(dim=(2, 3)) for x in (infrared, visible) for f in (x.amin, x.amax)], dim=1)


def _contrast(extremes: Tensor) -> Tensor:
    """Return which part of ``FLAT`` a pair spans, at most 1, as ``(B, 1, 1, 1)``."""
    return ((extremes.amax(1) - extremes.amin(1)) / FLAT).clamp(max=1).view(-1, 1, 1, 1)
