"""Picture files as the gray levels that metrics take."""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import Tensor

from fusionblocks.image import read_image

# BT.601 in the order and the precision that the published evaluators' reader (OpenCV) adds it up
_BLUE, _GREEN, _RED = 0.114, 0.587, 0.299


def read_gray_levels(path: str | os.PathLike[str]) -> Tensor:
    """Read a picture as metrics take it: the gray levels of a gray picture, the rounded luma of a colour picture.

    The luma is BT.601, in float32 and rounded to whole levels, as the published evaluators read a colour picture. All
    but 546 of the 2^24 colours, which lie between two levels, get the level that OpenCV 5 gives them.

    Args:
        path: A picture file of any kind that :func:`fusionblocks.image.read_image` reads.

    Returns:
        ``(1, 1, H, W)``, uint8; float32 in [0, 1] for a float TIFF, without rounding.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file cannot be read, or has 16 bits a sample: metrics are defined on 256 gray levels, and how a
            picture is brought to them changes its scores.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from fusionblocks.image import write_image
        >>> from fusionblocks.metrics import read_gray_levels
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_image(f"{folder}/colour.png", np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8))
        ...     read_gray_levels(f"{folder}/colour.png").flatten().tolist()
        [76, 29]
    """
    array = read_image(path)
    if array.dtype == np.uint16:
        raise ValueError(
            f"{path} has 16 bits a sample, and metrics are defined on 256 gray levels: convert it to 8 bits first "
            "(fusionblocks.image.normalize_percentiles for a raw thermal picture)"
        )
    if array.ndim == 3:
        picture = torch.from_numpy(array).permute(2, 0, 1)[None]
        return rounded_luma(picture) if array.dtype == np.uint8 else _luma(picture).clamp(0, 1)
    return torch.from_numpy(array)[None, None]


def rounded_luma(picture: Tensor) -> Tensor:
    """Return the luma of pictures ``(B, 3, H, W)`` uint8 as ``(B, 1, H, W)`` uint8, as published evaluators read it.

    No example: :func:`read_gray_levels` and :func:`evaluate` call it.
    """
    return _luma(picture).round().to(torch.uint8)


def _luma(picture: Tensor) -> Tensor:
    red, green, blue = (channel.to(torch.float32) for channel in picture.split(1, dim=1))
    return blue * _BLUE + green * _GREEN + red * _RED
