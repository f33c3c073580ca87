"""Checks of arguments; each error names the argument, what was expected and what came.

A value of the wrong type is a ``TypeError``, one out of its range a ``ValueError``. Whole pictures are checked by
``fusionblocks.image.check_picture``, ``check_pair`` and ``check_values``, which are public.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fusionblocks._support.names import closest

#: What the operators compute in.
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def check_choice(name: str, value: object, known: Sequence[object]) -> None:
    """Raise unless a value is one of those known; a name that is nearly one of them is told.

    Example:
        >>> check_choice("norm", "l3", ("l1", "l2"))
        Traceback (most recent call last):
            ...
        ValueError: norm must be one of 'l1', 'l2', got 'l3'
    """
    if value not in known:
        meant = closest(value, [name for name in known if isinstance(name, str)]) if isinstance(value, str) else ""
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}{meant}")


def check_whole(name: str, value: object, least: int, *, odd: bool = False) -> int:
    """Return an integer of at least ``least``, odd if so asked.

    Example:
        >>> check_whole("window", 4, 1, odd=True)
        Traceback (most recent call last):
            ...
        ValueError: window must be an odd number, got 4
    """
    if isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r} of type {type(value).__name__}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    if odd and number % 2 == 0:
        raise ValueError(f"{name} must be an odd number, got {number}")
    return number


def check_number(
    name: str,
    value: object,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> float:
    """Return a finite number within its bounds, as a float.

    Example:
        >>> check_number("haze", 1.5, least=0, most=1)
        Traceback (most recent call last):
            ...
        ValueError: haze must lie in [0, 1], got 1.5
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating | np.integer):
        raise TypeError(f"{name} must be a number, got {value!r} of type {type(value).__name__}")
    fits = (
        math.isfinite(value),
        least is None or value >= least,
        above is None or value > above,
        most is None or value <= most,
        below is None or value < below,
    )
    if not all(fits):
        bounds = {"at least": least, "above": above, "at most": most, "below": below}
        wanted = " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None) or "finite"
        interval = least is not None and most is not None
        raise ValueError(f"{name} must {f'lie in [{least:g}, {most:g}]' if interval else f'be {wanted}'}, got {value}")
    return float(value)


def check_positive(**sizes: int) -> None:
    """Raise unless every keyword is a positive integer."""
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"{name} must be a positive integer, got {size!r}")


def check_divisible(name: str, value: int, by_name: str, by: int) -> None:
    """Raise unless ``value`` is a positive multiple of ``by``."""
    check_positive(**{name: value, by_name: by})
    if value % by:
        raise ValueError(f"{name} must be a multiple of {by_name}={by}, got {value}")


def check_rank(layout: str, **tensors: Tensor) -> None:
    """Raise unless each tensor is a floating-point tensor of the layout's rank, such as ``(B, heads, C, N)``."""
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a tensor of shape {layout}, got {type(tensor).__name__}")
        if tensor.dtype not in DTYPES:
            raise TypeError(f"{name} must be float64, float32, float16 or bfloat16, got {tensor.dtype}")
        if tensor.ndim != layout.count(",") + 1:
            raise ValueError(f"{name} must have shape {layout}, got {tuple(tensor.shape)}")


def check_features(name: str, x: Tensor, channels: int) -> None:
    """Raise unless ``x`` is a float feature map ``(B, channels, H, W)``."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor of shape (B, {channels}, H, W), got {type(x).__name__}")
    if x.ndim != 4 or x.shape[1] != channels:
        raise ValueError(f"{name} must have shape (B, {channels}, H, W), got {tuple(x.shape)}")
    if not torch.is_floating_point(x):
        raise TypeError(f"{name} must be of a floating-point dtype, got {x.dtype}")


def check_same_shape(**tensors: Tensor) -> None:
    """Raise unless all tensors, given by name, have one shape."""
    (first, reference), *others = tensors.items()
    for name, tensor in others:
        if tensor.shape != reference.shape:
            raise ValueError(
                f"{first} and {name} must have the same shape, got {tuple(reference.shape)} and {tuple(tensor.shape)}"
            )


def check_alike(channels: int, **features: Tensor) -> None:
    """Raise unless all tensors, given by name, are float feature maps ``(B, channels, H, W)`` of one shape."""
    for name, tensor in features.items():
        check_features(name, tensor, channels)
    check_same_shape(**features)


def check_same_sizes(dims: dict[str, int], **tensors: Tensor) -> None:
    """Raise unless all tensors agree in the named dimensions, given as ``{"B": 0, ...}``."""
    (first, reference), *others = tensors.items()
    expected = reference.shape
    for name, tensor in others:
        found = tensor.shape
        for dim_name, dim in dims.items():
            if found[dim] != expected[dim]:
                raise ValueError(
                    f"{name} must have {dim_name}={expected[dim]} like {first} of shape {tuple(expected)}, "
                    f"got {name} of shape {tuple(found)}"
                )


def check_same_kind(**tensors: Tensor) -> None:
    """Raise unless all tensors are of one dtype and on one device."""
    (first, reference), *others = tensors.items()
    for name, tensor in others:
        if tensor.device != reference.device:
            raise ValueError(f"{name} must be on the device of {first}, {reference.device}, got {tensor.device}")
        if tensor.dtype != reference.dtype:
            raise TypeError(f"{name} must have the dtype of {first}, {reference.dtype}, got {tensor.dtype}")
