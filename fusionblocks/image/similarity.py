"""Structural similarity of two pictures."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fusionblocks._support.autocast import no_autocast
from fusionblocks.image.filters import add_border, gaussian_kernel
from fusionblocks.image.windows import filter_valid

# the constants of the paper that keep the ratios stable
K1, K2 = 0.01, 0.03


def ssim(
    x: Tensor,
    y: Tensor,
    *,
    data_range: float = 1.0,
    window_size: int = 11,
    sigma: float = 1.5,
    padding: Literal["valid", "reflect", "zero"] = "valid",
) -> Tensor:
    """Return the structural similarity of two batches of pictures, averaged over each picture and its channels.

    Args:
        x: ``(B, C, H, W)``, floating point.
        y: ``(B, C, H, W)``, floating point; the measure is symmetric.
        data_range: Difference between the largest and the smallest possible value.
        window_size: Side of the Gaussian window in pixels, odd.
        sigma: Standard deviation of the window in pixels.
        padding: ``"valid"`` averages where the window fits entirely, as the paper does; ``"reflect"`` and ``"zero"``
            cover the whole picture.

    Returns:
        ``(B,)``, at most 1, which only equal pictures reach; float32 for half-precision pictures.

    Raises:
        TypeError: A picture is not a tensor, or not of a floating-point dtype.
        ValueError: The shapes differ or are not those of pictures, a picture is smaller than the window, or an option
            is out of range.

    Reference:
        Image Quality Assessment: From Error Visibility to Structural Similarity (2004).

    Example:
        >>> import torch
        >>> from fusionblocks.image import ssim
        >>> x = torch.rand(2, 1, 16, 16)
        >>> ssim(x, x)
        tensor([1., 1.])
    """
    return ssim_map(x, y, data_range=data_range, window_size=window_size, sigma=sigma, padding=padding).mean(
        dim=(1, 2, 3)
    )


def ssim_map(
    x: Tensor,
    y: Tensor,
    *,
    data_range: float = 1.0,
    window_size: int = 11,
    sigma: float = 1.5,
    padding: Literal["valid", "reflect", "zero"] = "valid",
) -> Tensor:
    """Return the structural similarity of two batches of pictures at every pixel.

    Args:
        x: ``(B, C, H, W)``, floating point.
        y: ``(B, C, H, W)``, floating point.
        data_range: Difference between the largest and the smallest possible value.
        window_size: Side of the Gaussian window in pixels, odd.
        sigma: Standard deviation of the window in pixels.
        padding: ``"valid"`` where the window fits entirely, or what lies beyond the edge: ``"reflect"``, ``"zero"``.

    Returns:
        ``(B, C, H, W)``, for ``"valid"`` with height and width less by ``window_size - 1``; float32 for half-precision
        pictures.

    Raises:
        TypeError: A picture is not a tensor, or not of a floating-point dtype.
        ValueError: The shapes differ or are not those of pictures, a picture is smaller than the window, or an option
            is out of range.

    Reference:
        Image Quality Assessment: From Error Visibility to Structural Similarity (2004).

    Example:
        >>> import torch
        >>> from fusionblocks.image import ssim_map
        >>> ssim_map(torch.rand(1, 1, 16, 20), torch.rand(1, 1, 16, 20)).shape
        torch.Size([1, 1, 6, 10])
    """
    _check(x, y, data_range, window_size, padding)
    dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
    x, y = x.to(dtype), y.to(dtype)
    kernel = gaussian_kernel(sigma, window_size, dtype=dtype, device=x.device)
    if padding != "valid":
        x, y = (add_border(picture, window_size // 2, padding) for picture in (x, y))
    with no_autocast(x.device.type):  # autocast would narrow the products that filter
        moments = filter_valid(torch.stack((x, y, x * x, y * y, x * y)), kernel)
    mean_x, mean_y, square_x, square_y, product = moments.unbind(0)
    variances = (square_x - mean_x * mean_x) + (square_y - mean_y * mean_y)
    covariance = product - mean_x * mean_y
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x * mean_x + mean_y * mean_y + c1)
    return luminance * (2 * covariance + c2) / (variances + c2)


def _check(x: Tensor, y: Tensor, data_range: float, window_size: int, padding: str) -> None:
    for name, picture in (("x", x), ("y", y)):
        if not isinstance(picture, Tensor):
            raise TypeError(f"{name} must be a tensor of shape (B, C, H, W), got {type(picture).__name__}")
        if picture.ndim != 4:
            raise ValueError(f"{name} must have shape (B, C, H, W), got {tuple(picture.shape)}")
        if not torch.is_floating_point(picture):
            raise TypeError(f"{name} must be of a floating-point dtype, got {picture.dtype}")
    if x.shape != y.shape:
        raise ValueError(f"x and y must have the same shape, got {tuple(x.shape)} and {tuple(y.shape)}")
    if not data_range > 0:
        raise ValueError(f"data_range must be a positive number, got {data_range!r}")
    if padding not in ("valid", "reflect", "zero"):
        raise ValueError(f"padding must be 'valid', 'reflect' or 'zero', got {padding!r}")
    if padding == "valid" and isinstance(window_size, int) and (x.shape[2] < window_size or x.shape[3] < window_size):
        size = f"{x.shape[2]}x{x.shape[3]} (height x width)"
        raise ValueError(f"x and y must be no smaller than the window of {window_size} pixels, got {size}")
