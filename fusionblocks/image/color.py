"""BT.601 colour at full range: RGB, YCbCr, luma, and a picture's colour under another luma."""

from __future__ import annotations

import torch
from torch import Tensor

# ITU-R BT.601: the share of red, green and blue in luma
RED, GREEN, BLUE = 0.299, 0.587, 0.114


def luma(rgb: Tensor) -> Tensor:
    """Return the BT.601 luma of an RGB picture.

    Args:
        rgb: ``(..., 3, H, W)`` in [0, 1], floating point.

    Returns:
        ``(..., 1, H, W)`` in [0, 1].

    Raises:
        TypeError: ``rgb`` is not of a floating-point dtype.
        ValueError: ``rgb`` has not three channels.

    Example:
        >>> import torch
        >>> from fusionblocks.image import luma
        >>> luma(torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)).item()
        0.29899999499320984
    """
    _check_channels("rgb", rgb, 3)
    return _luma(rgb)


def rgb_to_ycbcr(rgb: Tensor) -> Tensor:
    """Turn RGB into BT.601 full-range YCbCr, the chroma centred at 0.5.

    Args:
        rgb: ``(..., 3, H, W)`` in [0, 1], floating point.

    Returns:
        ``(..., 3, H, W)``: Y, Cb, Cr, each in [0, 1].

    Raises:
        TypeError: ``rgb`` is not of a floating-point dtype.
        ValueError: ``rgb`` has not three channels.

    Example:
        >>> import torch
        >>> from fusionblocks.image import rgb_to_ycbcr
        >>> rgb_to_ycbcr(torch.ones(3, 1, 1)).flatten()
        tensor([1.0000, 0.5000, 0.5000])
    """
    y = luma(rgb)
    red, _, blue = rgb.split(1, dim=-3)
    cb = (blue - y) / (2 * (1 - BLUE)) + 0.5
    cr = (red - y) / (2 * (1 - RED)) + 0.5
    return torch.cat((y, cb, cr), dim=-3)


def ycbcr_to_rgb(ycbcr: Tensor) -> Tensor:
    """Turn BT.601 full-range YCbCr back into RGB, the exact inverse of :func:`rgb_to_ycbcr`.

    Not every triple is a colour: the result may leave [0, 1]. See :func:`with_luma` for a result that never does.

    Args:
        ycbcr: ``(..., 3, H, W)``: Y, Cb, Cr in [0, 1], floating point.

    Returns:
        ``(..., 3, H, W)``.

    Raises:
        TypeError: ``ycbcr`` is not of a floating-point dtype.
        ValueError: ``ycbcr`` has not three channels.

    Example:
        >>> import torch
        >>> from fusionblocks.image import rgb_to_ycbcr, ycbcr_to_rgb
        >>> rgb = torch.rand(3, 4, 4)
        >>> torch.allclose(ycbcr_to_rgb(rgb_to_ycbcr(rgb)), rgb, atol=1e-6)
        True
    """
    _check_channels("ycbcr", ycbcr, 3)
    y, cb, cr = ycbcr.split(1, dim=-3)
    blue_minus_y = 2 * (1 - BLUE) * (cb - 0.5)
    red_minus_y = 2 * (1 - RED) * (cr - 0.5)
    # the three differences from luma, weighted as luma is, sum to zero
    green_minus_y = -(RED * red_minus_y + BLUE * blue_minus_y) / GREEN
    return torch.cat((y + red_minus_y, y + green_minus_y, y + blue_minus_y), dim=-3)


def with_luma(luma: Tensor, rgb: Tensor) -> Tensor:
    """Give an RGB picture another luma and keep its chroma: the way a gray fusion result becomes a colour picture.

    A colour that the new luma carries out of gamut is moved towards gray at constant luma, by the smallest
    reduction of its chroma that fits, pixel by pixel; hue and luma stay as they are, nothing is clipped.

    Args:
        luma: ``(..., 1, H, W)``, floating point, clamped to [0, 1].
        rgb: ``(..., 3, H, W)`` in [0, 1], of the same size and dtype.

    Returns:
        ``(..., 3, H, W)`` in [0, 1].

    Raises:
        TypeError: A tensor is not of a floating-point dtype.
        ValueError: The channels are not one and three, or the other dimensions differ.

    Example:
        >>> import torch
        >>> from fusionblocks.image import with_luma
        >>> pink = torch.tensor([1.0, 0.5, 0.5]).view(3, 1, 1)
        >>> with_luma(torch.full((1, 1, 1), 0.3), pink).flatten()
        tensor([0.6505, 0.1505, 0.1505])
    """
    _check_channels("luma", luma, 1)
    _check_channels("rgb", rgb, 3)
    if luma.shape[:-3] != rgb.shape[:-3] or luma.shape[-2:] != rgb.shape[-2:]:
        raise ValueError(
            f"luma and rgb must have the same shape but for channels, got {tuple(luma.shape)} and {tuple(rgb.shape)}"
        )
    y = luma.clamp(0, 1)
    chroma = rgb - _luma(rgb)  # of luma zero: adding any multiple of it leaves the luma alone
    tiny = torch.finfo(rgb.dtype).eps
    rise = chroma.amax(dim=-3, keepdim=True).clamp_min(tiny)
    fall = (-chroma).amax(dim=-3, keepdim=True).clamp_min(tiny)
    saturation = torch.minimum((1 - y) / rise, y / fall).clamp_max(1)
    return (y + saturation * chroma).clamp(0, 1)


def _luma(rgb: Tensor) -> Tensor:
    red, green, blue = rgb.split(1, dim=-3)
    return RED * red + GREEN * green + BLUE * blue


def _check_channels(name: str, x: Tensor, channels: int) -> None:
    if x.ndim < 3 or x.shape[-3] != channels:
        raise ValueError(f"{name} must have shape (..., {channels}, H, W), got {tuple(x.shape)}")
    if not torch.is_floating_point(x):
        raise TypeError(f"{name} must be of a floating-point dtype, got {x.dtype}")
