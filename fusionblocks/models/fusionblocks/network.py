"""The library's own small network: blocks decide how to mix, the sources supply every pixel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionblocks._support.checks import check_choice, check_whole
from fusionblocks.blocks import CAI, GradientResidualDense, TransformerBlock
from fusionblocks.blocks.by_rows import must_own, run
from fusionblocks.image import luma
from fusionblocks.image.checks import check_pair
from fusionblocks.image.padding import missing
from fusionblocks.image.rows import Map, Rows, Shape, each, keep
from fusionblocks.models.base import FusionModel, FusionOutput

MOST_KEPT = 1.25e9
"""Bytes of the features of both modalities up to which they are held when a picture is fused by rows."""
WHITE, BLACK = 253.4 / 255, 1.6 / 255
"""What a result nears beyond the brighter and the darker source: no pixel is burnt or crushed that is not in either."""
LEAST_ROOM = 1e-4
"""Room between a source and these, at least."""
FLAT = 16 / 255
"""Span of a pair, from its darkest to its brightest pixel, below which ever less is added to the brighter source."""


@dataclass(frozen=True)
class FusionBlocksConfig:
    """Widths of :class:`FusionBlocksNet`.

    Args:
        style: What the weights were trained for: ``"vivid"``, strong contrast and sharp detail, or ``"natural"``, the
            sources' own tones and no artefacts. It changes nothing but which weights come with the library.
        channels: Width ``C`` of the features of each modality, a multiple of ``num_heads``.
        num_heads: Heads of the channel attention.
        scale: How many times smaller the features are than the picture, a power of two.
        margin: Rows and columns of features that are repeated around the picture, so that its edge looks like its
            middle to the convolutions.
        levels: Bands of detail, each of half the size of the one before; below them lies the base.
    """

    style: Literal["vivid", "natural"] = "vivid"
    channels: int = 24
    num_heads: int = 4
    scale: int = 4
    margin: int = 4
    levels: int = 4

    def __post_init__(self) -> None:
        check_choice("style", self.style, ("vivid", "natural"))
        check_whole("scale", self.scale, 1)
        if self.scale & (self.scale - 1):
            raise ValueError(f"scale must be a power of two, got {self.scale}")
        check_whole("margin", self.margin, 0)
        check_whole("levels", self.levels, 1)


class FusionBlocksNet(FusionModel):
    """The network that the library trained itself: small, and its result is made of the sources' own pixels.

    Features at a quarter of the size see what is where. Both sources are taken apart into bands of detail and a base,
    and from the features the head reads, for every place, how much to take: of each band the stronger source's detail,
    and of the base the brighter source, to which parts of both are added. These weights are smooth, so the network can
    lift contrast and choose a source, but cannot invent texture. What it adds beyond the brighter source, or takes away
    beyond the darker one, nears white and black without reaching them. Nor can it change the level of a flat pair: with
    less than 16 of 255 levels between its darkest and its brightest pixel, what is added to the base shrinks with what
    there is, to nothing for a constant pair.

    ``create_model("fusionblocks")`` comes with trained weights; this class by itself starts from fresh ones, with which
    it takes the stronger detail and the brighter base.

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
    packaged: ClassVar[Mapping[str, str]] = {
        "vivid.safetensors": "313c0a089d924574f25744ef28f064050d8922f97f5afce217a925a91c191278",
        "natural.safetensors": "f3c5cf999ee36b4458e01e0248d95976136834e1d1d895113236a2b4722f96bc",
    }
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
        self.head = nn.Conv2d(channels, 3 * self.config.levels + 4, 3, padding=1)
        # an untrained network takes the stronger detail and the brighter base
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def packaged_file(self) -> str | None:
        """Return the file with the weights of this style, None if the widths are others."""
        config = FusionBlocksConfig(style=self.config.style)
        return f"{self.config.style}.safetensors" if self.config == config else None

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
            padding = (scale * margin, scale * margin + missing(infrared.shape[-1], scale), above, below)
            return F.pixel_unshuffle(F.pad(torch.cat([infrared, visible]), padding, mode="replicate"), scale)

        if isinstance(infrared, Tensor):
            return shrink(infrared, visible, scale * margin, scale * margin + missing(infrared.shape[-2], scale))
        batch, height, width = infrared.shape
        smaller = Shape(2 * batch, *(-(-side // scale) + 2 * margin for side in (height, width)))

        def read(first: int, last: int) -> Tensor:
            rows = range((first - margin) * scale, (last - margin) * scale)
            return shrink(infrared.read_repeated(rows), visible.read_repeated(rows), 0, 0)

        return Rows(read, smaller, infrared.strip // scale)

    def _blend(self, weights: Map, infrared: Map, visible: Map) -> Map:
        """Return what the weights, which are small and have a margin, take of both sources."""
        scale, margin = self.config.scale, self.config.margin
        step = max(2**self.config.levels, scale)

        def whole(side: int) -> int:
            """Return how many weights whole steps of a side have."""
            return (side + missing(side, step)) // scale

        def blend(weights: Tensor, infrared: Tensor, visible: Tensor, share: Tensor) -> Tensor:
            """Blend rows that begin at a multiple of ``step``, the weights those of the same rows without a margin."""
            height, width = infrared.shape[-2:]
            lacking = (0, missing(width, step), 0, missing(height, step))
            wide = torch.promote_types(infrared.dtype, torch.float32)
            pair = F.pad(torch.cat([infrared, visible], dim=1).to(wide), lacking, mode="replicate")
            rows, columns = (side // scale for side in pair.shape[-2:])
            small = weights.narrow(-2, 0, rows).narrow(-1, 0, columns).to(wide)
            fused = fuse_bands(pair, small, share, self.config.levels)
            # not by slices, whose ends an export would have to bound
            return fused.narrow(-2, 0, height).narrow(-1, 0, width).to(infrared.dtype)

        def extended(weights: Tensor, rows: int) -> Tensor:
            """Return the weights of whole steps: those of the last row again below it, and columns likewise."""
            columns = whole(infrared.shape[-1])
            return F.pad(
                weights, (0, max(columns - weights.shape[-1], 0), 0, max(rows - weights.shape[-2], 0)), mode="replicate"
            )

        if isinstance(infrared, Tensor):
            rows, columns = (whole(side) for side in infrared.shape[-2:])
            if margin >= step // scale - 1:  # the margin holds what is missing to whole steps
                inner = weights.narrow(-2, margin, rows).narrow(-1, margin, columns)
            else:
                inner = extended(weights[..., margin : margin + rows, margin:], rows)
            return blend(inner, infrared, visible, _contrast(_extremes(infrared, visible)))

        @cache
        def share() -> Tensor:
            pairs = zip(infrared.strips(), visible.strips(), strict=True)
            return _contrast(torch.cat([_extremes(a, b) for (_, a), (_, b) in pairs], dim=1))

        def read(first: int, last: int) -> Tensor:
            above = max(first // step - 2, 0) * step
            below = min((-(-last // step) + 2) * step, infrared.shape.height)
            pair = infrared.read(above, below), visible.read(above, below)
            rows = whole(below - above)
            start = margin + above // scale
            small = weights.read(start, min(start + rows, weights.shape.height))[..., margin:]
            return blend(extended(small, rows), *pair, share())[:, :, first - above : last - above]

        return Rows(read, infrared.shape, infrared.strip)


def fuse_bands(pair: Tensor, weights: Tensor, share: Tensor, levels: int) -> Tensor:
    """Return the blend of two pictures by bands.

    Args:
        pair: Infrared and visible ``(B, 2, H, W)``, sides multiples of ``2 ** levels``.
        weights: ``(B, 3 * levels + 4, h, w)``: of each band the gain of the stronger detail and the parts of both, of
            the base the parts of both, of the brighter one, and a level.
        share: How much of what the weights add counts, ``(B, 1, 1, 1)``.
        levels: How many bands.
    """
    bands, base = [], pair
    for _ in range(levels):
        smaller = F.avg_pool2d(base, 2)
        bands.append(base - _twice(smaller))
        base = smaller
    first, second = base.chunk(2, dim=1)
    brighter = torch.maximum(first, second)
    parts = _resized(weights[:, 3 * levels :], base.shape[-2:])
    pictures = torch.cat([base, brighter, torch.ones_like(brighter)], dim=1)
    fused = brighter + share * (parts * pictures).sum(dim=1, keepdim=True)
    for level in reversed(range(levels)):
        band = bands[level]
        first, second = band.chunk(2, dim=1)
        stronger = torch.where(first.abs() >= second.abs(), first, second)
        gains = _resized(weights[:, 3 * level : 3 * level + 3], band.shape[-2:])
        details = torch.cat([stronger, band], dim=1)
        fused = _twice(fused) + stronger + share * (gains * details).sum(dim=1, keepdim=True)
    return _within(fused, pair)


def _within(fused: Tensor, pair: Tensor) -> Tensor:
    """Return a picture whose values beyond the brighter and the darker source near white and black smoothly."""
    darker, brighter = pair.amin(1, keepdim=True), pair.amax(1, keepdim=True)
    above, below = (WHITE - brighter).clamp_min(LEAST_ROOM), (darker - BLACK).clamp_min(LEAST_ROOM)
    over, under = (fused - brighter).clamp_min(0), (darker - fused).clamp_min(0)
    return fused - over + above * torch.tanh(over / above) + under - below * torch.tanh(under / below)


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear")


def _resized(weights: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return weights at another power-of-two size: means where it is smaller, interpolated where it is larger."""
    if weights.shape[-2] > size[0]:
        return F.avg_pool2d(weights, weights.shape[-2] // size[0])
    return weights if weights.shape[-2:] == size else F.interpolate(weights, size=size, mode="bilinear")


def _extremes(infrared: Tensor, visible: Tensor) -> Tensor:
    """Return the darkest and the brightest values of both maps, ``(B, 4)``."""
    return torch.cat([f(dim=(2, 3)) for x in (infrared, visible) for f in (x.amin, x.amax)], dim=1)


def _contrast(extremes: Tensor) -> Tensor:
    """Return which part of ``FLAT`` a pair spans, at most 1, as ``(B, 1, 1, 1)``."""
    return ((extremes.amax(1) - extremes.amin(1)) / FLAT).clamp(max=1).view(-1, 1, 1, 1)
