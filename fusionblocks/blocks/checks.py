"""Checks of block arguments; each error names the argument, what was expected and what came."""

from __future__ import annotations

import torch
from torch import Tensor


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
