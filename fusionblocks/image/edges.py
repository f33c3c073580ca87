"""Edges of two sources and of what was fused of them: which are preserved, and which are made up."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fusionblocks.image.filters import sobel


def without_border(score: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return a score of pictures that have a border of one pixel, made of a score of their Sobel responses."""

    def of_pictures(pictures: Tensor) -> Tensor:
        across, down = (response[..., 1:-1, 1:-1] for response in sobel(pictures, border="zero"))
        return score(across, down).sum(dim=(-3, -2, -1))

    return of_pictures


def preserved_edges(across: Tensor, down: Tensor, *, scale: float = 1.0) -> Tensor:
    """Return the preserved and the present strength of the sources' edges at every pixel, as Qabf adds them up.

    Args:
        across: Responses of the fused picture and its sources across, gray levels ``(3, ...)``.
        down: The same down.
        scale: What the published evaluator multiplies gray levels by.
    """
    strength = _strength(across, down)
    upright = across == 0
    # the published kernels look leftwards: an orientation is the angle of (-across, down), folded to one half turn
    orientation = torch.where(upright, math.pi / 2, torch.atan(down / -across.masked_fill(upright, 1.0)))
    source, made = strength[1:], strength[:1]
    ratio = torch.minimum(made, source) / torch.maximum(made, source)
    ratio = torch.where(made == source, scale * source, ratio)
    agreement = 1 - (orientation[1:] - orientation[:1]).abs() * (2 / math.pi)
    quality = 0.9994 * torch.sigmoid(15 * (ratio - 0.5)) * 0.9879 * torch.sigmoid(22 * (agreement - 0.8))
    present = source * (source > 2 * _tiny(source))
    return torch.stack(((quality * present).sum(0), present.sum(0)))


def artificial_edges(across: Tensor, down: Tensor, *, stronger_than: str = "both") -> Tensor:
    """Return the weight of made-up edges and of all at every pixel, as Nabf adds them up.

    Args:
        across: Responses of the fused picture and its sources across, gray levels ``(3, ...)``.
        down: The same down.
        stronger_than: ``"both"`` sources' edges are exceeded by a made-up one, or those of the ``"infrared"`` picture.
    """
    strength = _strength(across, down)
    source, made = strength[1:], strength[:1]
    lost = _lost(strength, torch.atan2(down, across))
    weight = 0.001 * torch.where(source >= 2, source**1.5, 1.0)
    stronger = made > source
    artifact = stronger[:1] if stronger_than == "infrared" else stronger[:1] & stronger[1:]
    return torch.stack(((artifact * lost * weight).sum(0), weight.sum(0)))


def halfturn_artificial_edges(across: Tensor, down: Tensor) -> Tensor:
    """Return what :func:`artificial_edges` does as PSFusion's evaluator has it.

    Kernels are divided by 8, an orientation is folded to half a turn, and an edge weighs its strength to the power of
    1.5 as it is.
    """
    across, down = across / 8, down / 8
    strength = _strength(across, down)
    source, made = strength[1:], strength[:1]
    level = down == 0
    orientation = torch.where(
        level, torch.sign(across) * (math.pi / 2), torch.atan(across / down.masked_fill(level, 1.0))
    )
    lost = _lost(strength, orientation)
    weight = torch.where(source >= 2, source**1.5, 0.001)
    artifact = (made > source).all(0)
    return torch.stack(((artifact * lost * weight).sum(0), weight.sum(0)))


def _lost(strength: Tensor, orientation: Tensor) -> Tensor:
    """Return how much of a source's edge is not kept, as Nabf has it, of 1."""
    source, made = strength[1:], strength[:1]
    ratio = torch.minimum(made, source) / torch.maximum(made, source)
    turn = ((orientation[1:] - orientation[:1]).abs() - math.pi / 2).abs() * (2 / math.pi)
    kept_strength = 0.9999 * torch.sigmoid(19 * (ratio * (source > 2 * _tiny(source)) - 0.5))
    kept_orientation = 0.9995 * torch.sigmoid(22 * (turn - 0.5))
    return 1 - (kept_strength * kept_orientation).sqrt()


def _tiny(x: Tensor) -> float:
    """Return the strength of no edge at all: its square is a number, and the gradient of its root is finite."""
    return 1e-150 if x.dtype == torch.float64 else 1e-15


def _strength(across: Tensor, down: Tensor) -> Tensor:
    return (across * across + down * down).clamp_min(_tiny(across) ** 2).sqrt()
