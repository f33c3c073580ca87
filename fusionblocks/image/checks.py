"""Checks of pictures given by a user; each error names the argument, what was expected and what came."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

#: How far rounding may carry a value of a float picture outside [0, 1].
TOLERANCE = 1e-4


def check_picture(name: str, x: Tensor, channels: int | Sequence[int]) -> None:
    """Raise unless ``x`` is a batch of float pictures with an accepted number of channels.

    Args:
        name: The argument's name, for the message.
        x: What should be a floating-point tensor ``(B, C, H, W)`` with no empty dimension.
        channels: The accepted ``C``, one number or several.

    Raises:
        TypeError: ``x`` is not a tensor, or not of a floating-point dtype.
        ValueError: The rank, the number of channels or an empty dimension is wrong.

    Example:
        >>> import torch
        >>> from fusionblocks.image import check_picture
        >>> check_picture("visible", torch.rand(2, 3, 8, 8), channels=(1, 3))
    """
    accepted = (channels,) if isinstance(channels, int) else tuple(channels)
    expected = f"(B, {' or '.join(str(c) for c in accepted)}, H, W)"
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor of shape {expected}, got {type(x).__name__}")
    if x.ndim != 4 or x.shape[1] not in accepted:
        raise ValueError(f"{name} must have shape {expected}, got {tuple(x.shape)}")
    if x.shape[0] < 1 or x.shape[2] < 1 or x.shape[3] < 1:
        raise ValueError(
            f"{name} must have shape {expected} with at least one picture and one pixel, got {tuple(x.shape)}"
        )
    if not torch.is_floating_point(x):
        raise TypeError(f"{name} must be of a floating-point dtype, got {x.dtype}")


def check_pair(infrared: Tensor, visible: Tensor, *, visible_channels: int | Sequence[int] = (3,)) -> None:
    """Raise unless the two pictures form an aligned pair: sound each, one batch size, one height and width.

    Args:
        infrared: ``(B, 1, H, W)``, floating point.
        visible: ``(B, C, H, W)``, floating point.
        visible_channels: The accepted ``C`` of ``visible``.

    Raises:
        TypeError: One of them is not a tensor, or not of a floating-point dtype.
        ValueError: A shape is wrong, or batch sizes or picture sizes differ.

    Example:
        >>> import torch
        >>> from fusionblocks.image import check_pair
        >>> check_pair(torch.rand(1, 1, 37, 50), torch.rand(1, 3, 37, 47))
        Traceback (most recent call last):
            ...
        ValueError: infrared and visible must have the same size, got 37x50 and 37x47 (height x width)
    """
    check_picture("infrared", infrared, 1)
    check_picture("visible", visible, visible_channels)
    if infrared.shape[0] != visible.shape[0]:
        raise ValueError(
            f"infrared and visible must have the same batch size, got {infrared.shape[0]} and {visible.shape[0]}"
        )
    if infrared.shape[2] != visible.shape[2] or infrared.shape[3] != visible.shape[3]:
        sizes = [f"{x.shape[2]}x{x.shape[3]}" for x in (infrared, visible)]
        raise ValueError(
            f"infrared and visible must have the same size, got {sizes[0]} and {sizes[1]} (height x width)"
        )


def check_values(name: str, x: Tensor) -> None:
    """Raise unless every value of a float picture is finite and lies in [0, 1], up to rounding (1e-4).

    It reads the values, so on a GPU it waits for them: it belongs at the door, not inside a network.

    Args:
        name: The argument's name, for the message.
        x: A floating-point tensor of any shape.

    Raises:
        TypeError: ``x`` is not a tensor, or not of a floating-point dtype.
        ValueError: A value is NaN, infinite or outside [0, 1]; the message counts or bounds them.

    Example:
        >>> import torch
        >>> from fusionblocks.image import check_values
        >>> check_values("infrared", torch.tensor([0.0, 255.0]))
        Traceback (most recent call last):
            ...
        ValueError: infrared must have values in [0, 1], got values from 0 to 255
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(x).__name__}")
    if not torch.is_floating_point(x):
        raise TypeError(f"{name} must be of a floating-point dtype, got {x.dtype}")
    if x.numel() == 0:
        return
    x = x.detach()
    finite = torch.isfinite(x)
    if not bool(finite.all()):
        nans = int(torch.isnan(x).sum())
        infinite = int((~finite).sum()) - nans
        raise ValueError(f"{name} must have finite values, got {nans} NaN and {infinite} infinite of {x.numel()}")
    low, high = (float(bound) for bound in torch.aminmax(x))
    if low < -TOLERANCE or high > 1 + TOLERANCE:
        raise ValueError(f"{name} must have values in [0, 1], got values from {low:.6g} to {high:.6g}")
