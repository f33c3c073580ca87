"""What every metric does first: check the pictures it was given and turn them into gray levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, overload

import torch
from torch import Tensor

from fusionblocks.image.checks import TOLERANCE

#: A float value this close to a whole gray level (in levels) is that level: what float32 makes of ``k / 255``.
_WHOLE = 1e-5


@dataclass(frozen=True)
class Levels:
    """Gray levels that were checked already: ``evaluate`` hands them to its metrics, so that the checks run once."""

    values: Tensor


@overload
def gray_levels(
    fused: Tensor | Levels, infrared: Tensor | Levels | None, visible: Tensor | Levels | None
) -> tuple[Tensor, Tensor, Tensor]: ...


@overload
def gray_levels(
    fused: Tensor | Levels,
    infrared: Tensor | Levels | None,
    visible: Tensor | Levels | None,
    *,
    optional: Literal[True],
) -> tuple[Tensor, Tensor | None, Tensor | None]: ...


def gray_levels(
    fused: Tensor | Levels,
    infrared: Tensor | Levels | None,
    visible: Tensor | Levels | None,
    *,
    optional: bool = False,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the three pictures as float64 gray levels 0..255 on their device, after all checks.

    Float pictures keep their autograd graph. A float value within its rounding error of a whole level is taken as
    that level, so that ``picture / 255`` scores exactly as the ``uint8`` picture it came from.

    Args:
        fused: ``(B, 1, H, W)``, ``uint8`` gray levels or float in [0, 1].
        infrared: As ``fused``, of the same batch size, size and device.
        visible: As ``fused``, of the same batch size, size and device.
        optional: Whether ``infrared`` and ``visible`` may be ``None``.

    Returns:
        Three float64 tensors ``(B, 1, H, W)``; ``None`` stays ``None``.

    Raises:
        TypeError: An argument is not a tensor, or neither ``uint8`` nor of a floating-point dtype.
        ValueError: A rank, size, batch size, device or value is not as expected; the message names the argument.

    Example:
        >>> fused = torch.tensor([[[[0.0, 1.0]]]])
        >>> gray_levels(fused, None, None, optional=True)[0].flatten().tolist()
        [0.0, 255.0]
    """
    first = _levels("fused", fused)
    sources: list[Tensor | None] = []
    for name, picture in (("infrared", infrared), ("visible", visible)):
        if picture is None and optional:
            sources.append(None)
        else:
            source = _levels(name, picture)
            _check_alike(first, name, source)
            sources.append(source)
    return first, sources[0], sources[1]


def check_smallest(name: str, f: Tensor, side: int) -> None:
    """Raise unless pictures ``(..., H, W)`` have at least ``side`` rows and columns, which the metric ``name`` needs.

    Example:
        >>> check_smallest("VIF", torch.zeros(1, 1, 40, 50), side=41)
        Traceback (most recent call last):
            ...
        ValueError: VIF is defined for pictures of at least 41x41 pixels, got 40x50 (height x width)
    """
    height, width = f.shape[-2:]
    if height < side or width < side:
        raise ValueError(
            f"{name} is defined for pictures of at least {side}x{side} pixels, got {height}x{width} (height x width)"
        )


def _levels(name: str, picture: Tensor | Levels | None) -> Tensor:
    if isinstance(picture, Levels):
        return picture.values
    expected = f"{name} must be a tensor (B, 1, H, W), uint8 gray levels or float in [0, 1]"
    if not isinstance(picture, Tensor):
        raise TypeError(f"{expected}, got {type(picture).__name__}")
    if picture.ndim != 4 or picture.shape[1] != 1 or picture.numel() == 0:
        advice = "; take the luma of a colour picture first (fusionblocks.image.luma)"
        raise ValueError(f"{expected}, got shape {tuple(picture.shape)}{advice if 3 in picture.shape[-3:] else ''}")
    if picture.dtype == torch.uint8:
        return picture.to(torch.float64)
    if not torch.is_floating_point(picture):
        advice = "; normalise other integer levels first, for instance by fusionblocks.image.normalize_percentiles"
        plain = picture.dtype == torch.bool or picture.dtype.is_complex
        raise TypeError(f"{expected}, got {picture.dtype}{'' if plain else advice}")
    _check_values(name, picture.detach())
    levels = (picture.to(torch.float64) * 255).clamp(0, 255)
    rounding = max(_WHOLE, 255 * torch.finfo(picture.dtype).eps)
    with torch.no_grad():
        off = levels.round() - levels
        off = torch.where(off.abs() <= rounding, off, 0)
    return levels + off


def _check_values(name: str, picture: Tensor) -> None:
    low, high = torch.aminmax(picture)  # NaN wherever there is one
    if not bool(torch.isfinite(low) & torch.isfinite(high)):
        for kind, wrong in (("NaN", torch.isnan(picture)), ("infinite", torch.isinf(picture))):
            counts = wrong.flatten(1).sum(1)
            if bool(counts.any()):
                index = int(counts.argmax())
                count = int(counts[index])
                raise ValueError(f"{name} has {count} {kind} value{'s' * (count > 1)} in picture {index}")
    if low < -TOLERANCE or high > 1 + TOLERANCE:
        raise ValueError(
            f"{name} must have values in [0, 1] (or be uint8), got values from {float(low):.6g} to {float(high):.6g}"
        )


def _check_alike(fused: Tensor, name: str, source: Tensor) -> None:
    if fused.shape[0] != source.shape[0]:
        raise ValueError(f"fused and {name} must have the same batch size, got {fused.shape[0]} and {source.shape[0]}")
    if fused.shape != source.shape:
        sizes = [f"{x.shape[2]}x{x.shape[3]}" for x in (fused, source)]
        raise ValueError(f"fused and {name} must have the same size, got {sizes[0]} and {sizes[1]} (height x width)")
    if fused.device != source.device:
        raise ValueError(f"fused and {name} must be on the same device, got {fused.device} and {source.device}")
