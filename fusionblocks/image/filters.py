"""Linear filters of pictures, each channel by itself: Gaussian, Sobel, Laplacian."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionblocks._support.autocast import no_autocast
from fusionblocks.image.padding import Padding, reflect_pad

#: What lies beyond the edge: the picture mirrored at its edge pixels, its edge pixels repeated, or zero.
Border = Literal["reflect", "replicate", "zero"]


def gaussian_kernel(
    sigma: float, size: int | None = None, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> Tensor:
    """Return the samples of a Gaussian that sum to one.

    Args:
        sigma: Standard deviation in pixels, positive.
        size: An odd number of samples; by default it reaches four standard deviations to each side.
        dtype: Floating-point dtype of the result, PyTorch's default if not given.
        device: Device of the result.

    Returns:
        ``(size,)``.

    Raises:
        ValueError: ``sigma`` is not positive or ``size`` not a positive odd number.

    Example:
        >>> from fusionblocks.image import gaussian_kernel
        >>> gaussian_kernel(0.5, 3)
        tensor([0.1065, 0.7870, 0.1065])
    """
    if not (math.isfinite(sigma) and sigma > 0):
        raise ValueError(f"sigma must be a positive number, got {sigma!r}")
    if size is None:
        size = 2 * int(4 * sigma + 0.5) + 1
    if not isinstance(size, int) or isinstance(size, bool) or size < 1 or size % 2 == 0:
        raise ValueError(f"size must be a positive odd number, got {size!r}")
    # made on the device: what is copied to a GPU at each call keeps a CUDA graph from being captured
    device = torch.get_default_device() if device is None else torch.device(device)
    precise = torch.float32 if device.type == "mps" else torch.float64
    offset = torch.arange(size, dtype=precise, device=device) - size // 2
    return (offset.square() * (-0.5 / sigma**2)).softmax(0).to(dtype or torch.get_default_dtype())


def gaussian_blur(x: Tensor, sigma: float, size: int | None = None, *, border: Border = "reflect") -> Tensor:
    """Blur a picture with a Gaussian.

    Args:
        x: ``(..., H, W)``, floating point; any size, smaller than the kernel included.
        sigma: Standard deviation in pixels, positive.
        size: An odd number of samples; by default it reaches four standard deviations to each side.
        border: What lies beyond the edge: ``"reflect"``, ``"replicate"`` or ``"zero"``.

    Returns:
        ``(..., H, W)``.

    Raises:
        TypeError: ``x`` is not of a floating-point dtype.
        ValueError: ``sigma``, ``size`` or ``border`` is not as above, or ``x`` has no height and width.

    Example:
        >>> import torch
        >>> from fusionblocks.image import gaussian_blur
        >>> gaussian_blur(torch.tensor([[0.0, 0.0, 1.0, 0.0, 0.0]]), sigma=0.5, size=3)
        tensor([[0.0000, 0.1065, 0.7870, 0.1065, 0.0000]])
    """
    check_plane("x", x)
    kernel = gaussian_kernel(sigma, size, dtype=x.dtype, device=x.device)
    return separable(add_border(x, kernel.shape[0] // 2, border), kernel)


def sobel(x: Tensor, *, border: Border = "reflect") -> tuple[Tensor, Tensor]:
    """Return the horizontal and the vertical Sobel response of a picture.

    Positive where the picture grows brighter to the right, or downwards; not normalised, so that a step of height
    one answers with four.

    Args:
        x: ``(..., H, W)``, floating point.
        border: What lies beyond the edge: ``"reflect"``, ``"replicate"`` or ``"zero"``.

    Returns:
        Two tensors ``(..., H, W)``, along the width and along the height.

    Raises:
        TypeError: ``x`` is not of a floating-point dtype.
        ValueError: ``border`` is unknown, or ``x`` has no height and width.

    Example:
        >>> import torch
        >>> from fusionblocks.image import sobel
        >>> across, down = sobel(torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(3, 4))
        >>> across[1], down[1]
        (tensor([0., 4., 4., 0.]), tensor([0., 0., 0., 0.]))
    """
    check_plane("x", x)
    x = add_border(x, 1, border)
    smooth_down = x[..., :-2, :] + 2 * x[..., 1:-1, :] + x[..., 2:, :]
    smooth_across = x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]
    return smooth_down[..., 2:] - smooth_down[..., :-2], smooth_across[..., 2:, :] - smooth_across[..., :-2, :]


def gradient_magnitude(x: Tensor, *, border: Border = "reflect") -> Tensor:
    """Return the sum of the absolute Sobel responses, the gradient that fusion losses compare.

    Args:
        x: ``(..., H, W)``, floating point.
        border: What lies beyond the edge: ``"reflect"``, ``"replicate"`` or ``"zero"`` (as published losses have it).

    Returns:
        ``(..., H, W)``, at least 0.

    Raises:
        TypeError: ``x`` is not of a floating-point dtype.
        ValueError: ``border`` is unknown, or ``x`` has no height and width.

    Example:
        >>> import torch
        >>> from fusionblocks.image import gradient_magnitude
        >>> gradient_magnitude(torch.tensor([1.0, 1.0, 0.0]).expand(2, 3))[0]
        tensor([0., 4., 0.])
    """
    across, down = sobel(x, border=border)
    return across.abs() + down.abs()


def laplacian(x: Tensor, *, border: Border = "reflect") -> Tensor:
    """Return the Laplacian of a picture: its four neighbours less four times the pixel itself.

    Args:
        x: ``(..., H, W)``, floating point.
        border: What lies beyond the edge: ``"reflect"``, ``"replicate"`` or ``"zero"``.

    Returns:
        ``(..., H, W)``.

    Raises:
        TypeError: ``x`` is not of a floating-point dtype.
        ValueError: ``border`` is unknown, or ``x`` has no height and width.

    Example:
        >>> import torch
        >>> from fusionblocks.image import laplacian
        >>> laplacian(torch.tensor([0.0, 1.0, 0.0]).expand(2, 3))[0]
        tensor([ 2., -2.,  2.])
    """
    check_plane("x", x)
    x = add_border(x, 1, border)
    centre = x[..., 1:-1, 1:-1]
    return x[..., :-2, 1:-1] + x[..., 2:, 1:-1] + x[..., 1:-1, :-2] + x[..., 1:-1, 2:] - 4 * centre


def check_plane(name: str, x: Tensor) -> None:
    """Raise unless ``x`` is a floating-point tensor ``(..., H, W)`` with at least one pixel."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor of shape (..., H, W), got {type(x).__name__}")
    if x.ndim < 2 or x.shape[-2] < 1 or x.shape[-1] < 1:
        raise ValueError(f"{name} must have shape (..., H, W) with at least one pixel, got {tuple(x.shape)}")
    if not torch.is_floating_point(x):
        raise TypeError(f"{name} must be of a floating-point dtype, got {x.dtype}")


def add_border(x: Tensor, radius: int, border: Border) -> Tensor:
    """Extend ``(..., H, W)`` by ``radius`` pixels on each side."""
    sides = Padding(radius, radius, radius, radius)
    if border == "reflect":
        return reflect_pad(x, sides)
    if border == "zero":
        return F.pad(x, tuple(sides))
    if border != "replicate":
        raise ValueError(f"border must be one of {', '.join(map(repr, get_args(Border)))}, got {border!r}")
    for dim in (-2, -1):
        index = torch.arange(-radius, x.shape[dim] + radius, device=x.device)
        x = x.index_select(dim, index.clamp(0, x.shape[dim] - 1))
    return x


def separable(x: Tensor, kernel: Tensor) -> Tensor:
    """Filter the height and the width of ``(..., H, W)`` with a symmetric kernel, where it fits entirely.

    Autocast stays out of it: rounded to eight bits, a blur and a variance would be wrong.
    """
    with no_autocast(x.device.type):
        planes = x.reshape(-1, 1, *x.shape[-2:])
        planes = F.conv2d(planes, kernel.view(1, 1, -1, 1))
        planes = F.conv2d(planes, kernel.view(1, 1, 1, -1))
        return planes.reshape(*x.shape[:-2], *planes.shape[-2:])
