"""What every loss does first: check its inputs, compute in float32 or better, and bring pictures to one channel."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from fusionblocks._support.autocast import no_autocast
from fusionblocks._support.checks import check_rank, check_same_shape
from fusionblocks.image.checks import check_picture
from fusionblocks.image.color import luma

Function = TypeVar("Function", bound=Callable[..., Tensor])


def full_precision(function: Function) -> Function:
    """Let a function compute in the widest dtype of its inputs, float32 at least, and keep autocast out of it.

    A sum of squares overflows float16, and a variance made of bfloat16 is wrong.
    """

    @functools.wraps(function)
    def computed(*args: Any, **kwargs: Any) -> Tensor:
        tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        dtype = functools.reduce(
            torch.promote_types, (x.dtype for x in tensors if x.is_floating_point()), torch.float32
        )

        def widened(x: Any) -> Any:
            return x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x

        args, kwargs = tuple(map(widened, args)), {name: widened(x) for name, x in kwargs.items()}
        device = tensors[0].device.type if tensors else "cpu"
        with no_autocast(device):
            return function(*args, **kwargs)

    return computed  # type: ignore[return-value]


def check_pictures(**pictures: Tensor) -> None:
    """Raise unless all are float pictures of one or three channels, of one batch size, height and width.

    Example:
        >>> check_pictures(fused=torch.rand(1, 1, 8, 8), visible=torch.rand(1, 3, 8, 9))
        Traceback (most recent call last):
            ...
        ValueError: fused and visible must have the same size, got 8x8 and 8x9 (height x width)
    """
    (first, reference), *others = pictures.items()
    check_picture(first, reference, (1, 3))
    for name, picture in others:
        check_picture(name, picture, (1, 3))
        check_same_size(first, reference, name, picture)


def check_same_size(first: str, reference: Tensor, name: str, other: Tensor) -> None:
    """Raise unless two tensors ``(B, ..., H, W)`` have one batch size, height and width."""
    batches = [x.shape[0] for x in (reference, other)]
    if batches[0] != batches[1]:
        raise ValueError(f"{first} and {name} must have the same batch size, got {batches[0]} and {batches[1]}")
    if reference.shape[-2:] != other.shape[-2:]:
        sizes = [f"{x.shape[-2]}x{x.shape[-1]}" for x in (reference, other)]
        raise ValueError(f"{first} and {name} must have the same size, got {sizes[0]} and {sizes[1]} (height x width)")


def check_maps(**tensors: Tensor) -> None:
    """Raise unless all are float tensors ``(B, C, H, W)`` of one shape with no empty dimension."""
    check_rank("(B, C, H, W)", **tensors)
    for name, x in tensors.items():
        if x.numel() == 0:
            raise ValueError(f"{name} must have shape (B, C, H, W) with no empty dimension, got {tuple(x.shape)}")
    check_same_shape(**tensors)


def alike(image: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Return both after checks, the reference's luma where the image is a luma and the reference RGB."""
    both = isinstance(image, Tensor) and isinstance(reference, Tensor) and image.ndim == reference.ndim == 4
    if both and (image.shape[1], reference.shape[1]) == (1, 3):
        reference = gray(reference)
    check_maps(image=image, reference=reference)
    return image, reference


def check_mask(mask: Tensor, fused: Tensor) -> None:
    """Raise unless ``mask`` is ``(B, 1, H, W)``, bool or float, of the size of ``fused``."""
    expected = "mask must be a tensor (B, 1, H, W), bool or float in [0, 1]"
    if not isinstance(mask, Tensor):
        raise TypeError(f"{expected}, got {type(mask).__name__}")
    if not (mask.is_floating_point() or mask.dtype == torch.bool):
        raise TypeError(f"{expected}, got {mask.dtype}")
    if mask.ndim != 4 or mask.shape[1] != 1:
        raise ValueError(f"{expected}, got shape {tuple(mask.shape)}")
    check_same_size("fused", fused, "mask", mask)


def gray(picture: Tensor) -> Tensor:
    """Return a picture's luma, or the picture itself if it has one channel."""
    return luma(picture) if picture.shape[1] == 3 else picture


def visible_like(fused: Tensor, visible: Tensor) -> Tensor:
    """Return the visible picture with as many channels as the fused one: its luma, or itself."""
    if fused.shape[1] == 3 and visible.shape[1] == 1:
        raise ValueError("visible must have 3 channels where fused has, got 1")
    return visible if fused.shape[1] == 3 else gray(visible)


def mean_difference(x: Tensor, y: Tensor) -> Tensor:
    """Return the mean absolute difference, L1 in the papers."""
    return (x - y).abs().mean()
