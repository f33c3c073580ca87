"""Colour fidelity of a fused colour picture to the visible image."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fusionblocks.image.checks import check_picture, check_values

# linear sRGB to CIE XYZ, and the white of illuminant D65 (2 degrees)
_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_WHITE = (0.95047, 1.0, 1.08883)


def chroma_difference(fused: Tensor, visible: Tensor) -> Tensor:
    r"""Return the mean colour difference of a fused colour picture from the visible image at equal lightness.

    Fusion is meant to change how bright a pixel is, and meant to leave its colour alone. So both pictures are taken
    to CIE L*a*b* (sRGB, D65), the fused pixel is given the lightness of the visible one, and what remains of the
    difference CIEDE2000 is its terms of chroma and hue:

    .. math::
        \Delta E = \sqrt{\left(\frac{\Delta C'}{S_C}\right)^2 + \left(\frac{\Delta H'}{S_H}\right)^2
        + R_T \frac{\Delta C'}{S_C} \frac{\Delta H'}{S_H}}

    averaged over the picture. Range: 0 and up; about 1 is just noticeable, a gray result of a colourful scene has
    10 and more. Lower is better; equal a* and b* everywhere, 0. A colour that is scaled by a factor keeps its hue but
    not its a* and b*, so a picture that only became brighter does not score exactly 0. No published evaluator for
    fusion has a convention for colour. Differentiable where the colours differ and are not gray.

    Args:
        fused: ``(B, 3, H, W)`` RGB, ``uint8`` or float in [0, 1].
        visible: As ``fused``.

    Returns:
        ``(B,)``, float64.

    Raises:
        TypeError: A picture is not a tensor or has another dtype.
        ValueError: Shapes differ, have not three channels, or values are out of range.

    Reference:
        The CIEDE2000 Color-Difference Formula: Implementation Notes, Supplementary Test Data, and Mathematical
        Observations (2005).

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import chroma_difference
        >>> visible = torch.rand(1, 3, 16, 16)
        >>> chroma_difference(visible, visible)
        tensor([0.], dtype=torch.float64)
    """
    rgb = [_colour(name, picture) for name, picture in (("fused", fused), ("visible", visible))]
    if fused.shape != visible.shape:
        raise ValueError(
            f"fused and visible must have the same shape, got {tuple(fused.shape)} and {tuple(visible.shape)}"
        )
    if fused.device != visible.device:
        raise ValueError(f"fused and visible must be on the same device, got {fused.device} and {visible.device}")
    return _difference(*(_lab_chroma(picture) for picture in rgb)).mean(dim=(-2, -1))


def _colour(name: str, picture: Tensor) -> Tensor:
    if isinstance(picture, Tensor) and picture.dtype == torch.uint8:
        picture = picture.to(torch.float64) / 255
    check_picture(name, picture, channels=3)
    check_values(name, picture)
    return picture.to(torch.float64).clamp(0, 1)


def _lab_chroma(rgb: Tensor) -> Tensor:
    """Return a* and b* of sRGB, ``(B, 3, H, W)`` to ``(B, 2, H, W)``."""
    linear = torch.where(rgb > 0.04045, ((rgb.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = torch.einsum("xc,bchw->bxhw", rgb.new_tensor(_XYZ), linear) / rgb.new_tensor(_WHITE).view(3, 1, 1)
    # the cube root, and its tangent where it grows too steep
    bend = (6 / 29) ** 3
    x, y, z = torch.where(xyz > bend, xyz.clamp_min(bend) ** (1 / 3), xyz * (29 / 6) ** 2 / 3 + 4 / 29).unbind(1)
    return torch.stack((500 * (x - y), 200 * (y - z)), dim=1)


def _difference(first: Tensor, second: Tensor) -> Tensor:
    """Return CIEDE2000 of colours ``(B, 2, H, W)`` of a* and b*, of equal lightness: ``(B, H, W)``."""
    # blues and grays apart, a* is stretched by up to half
    chroma = (torch.hypot(*first.unbind(1)) + torch.hypot(*second.unbind(1))) / 2
    stretch = 1.5 - 0.5 * _saturation(chroma)
    (a1, b1), (a2, b2) = first.unbind(1), second.unbind(1)
    chroma1, chroma2 = torch.hypot(a1 * stretch, b1), torch.hypot(a2 * stretch, b2)
    hue1, hue2 = torch.atan2(b1, a1 * stretch) % (2 * math.pi), torch.atan2(b2, a2 * stretch) % (2 * math.pi)
    coloured = chroma1 * chroma2 > 0

    turn = hue2 - hue1
    far = turn.abs() > math.pi  # the shorter way leads through hue 0
    turn = coloured * (turn - 2 * math.pi * turn.sign() * far)
    hue = (hue1 + hue2) / 2
    hue = torch.where(coloured, hue + math.pi * far * torch.where(hue < math.pi, 1.0, -1.0), hue1 + hue2)
    chroma = (chroma1 + chroma2) / 2

    weight = 1 - 0.17 * torch.cos(hue - math.radians(30)) + 0.24 * torch.cos(2 * hue)
    weight = weight + 0.32 * torch.cos(3 * hue + math.radians(6)) - 0.20 * torch.cos(4 * hue - math.radians(63))
    chroma_term = (chroma2 - chroma1) / (1 + 0.045 * chroma)
    hue_term = 2 * (chroma1 * chroma2).sqrt() * torch.sin(turn / 2) / (1 + 0.015 * chroma * weight)
    # in the blue region chroma and hue interact
    angle = math.radians(60) * torch.exp(-(((torch.rad2deg(hue) - 275) / 25) ** 2))
    rotation = -2 * _saturation(chroma) * torch.sin(angle)
    return (chroma_term**2 + hue_term**2 + rotation * chroma_term * hue_term).clamp_min(0).sqrt()


def _saturation(chroma: Tensor) -> Tensor:
    return (chroma**7 / (chroma**7 + 25.0**7)).sqrt()
