"""Picture arrays to tensors in [0, 1] and back."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fusionblocks.image.checks import check_values
from fusionblocks.image.rows import Rows, Shape
from fusionblocks.image.thermal import check_range, scale_range, thermal_limits


def normalize_percentiles(array: np.ndarray, low: float = 0.5, high: float = 99.5) -> np.ndarray:
    """Stretch raw sensor counts to [0, 1] between two percentiles, as 16-bit thermal pictures need it.

    Args:
        array: Counts of any real dtype and shape.
        low: Percentile that becomes 0.
        high: Percentile that becomes 1.

    Returns:
        Float32 array in [0, 1]; all zeros where the picture is constant.

    Raises:
        ValueError: Unless ``0 <= low < high <= 100``.

    Example:
        >>> import numpy as np
        >>> from fusionblocks.image import normalize_percentiles
        >>> counts = np.array([[29000, 29100], [29200, 29400]], np.uint16)
        >>> normalize_percentiles(counts, 0, 100).tolist()
        [[0.0, 0.25], [0.5, 1.0]]
    """
    if not 0 <= low < high <= 100:
        raise ValueError(f"low and high must satisfy 0 <= low < high <= 100, got {low} and {high}")
    floor, ceiling = np.percentile(array, (low, high))
    if ceiling <= floor:  # most counts are equal: what remains of the range is the outliers'
        floor, ceiling = array.min(), array.max()
    return scale_range(array, float(floor), float(ceiling))


def array_to_tensor(
    name: str, array: np.ndarray, *, thermal: bool = False, limits: tuple[float, float] | None = None
) -> Tensor:
    """Return a picture array as a float32 tensor ``(C, H, W)`` in [0, 1].

    Args:
        name: The argument's name, for errors.
        array: ``(H, W)`` or ``(H, W, C)`` with 1, 3 or 4 channels (alpha is dropped); uint8, uint16, or float
            in [0, 1], in either byte order. With ``limits`` any real dtype and any values.
        thermal: Stretch 16-bit counts over the scene's own range, see :func:`thermal_limits`, instead of 65535.
        limits: The values, in the array's own units, that become 0 and 1; what lies beyond is clipped.

    Raises:
        TypeError: If it is of another dtype.
        ValueError: If the shape is not a picture's, or float values are not finite or not in [0, 1].

    Example:
        >>> import numpy as np
        >>> from fusionblocks.image import array_to_tensor
        >>> array_to_tensor("visible", np.full((4, 6, 3), 255, np.uint8)).shape
        torch.Size([3, 4, 6])
    """
    return array_rows(name, array, thermal=thermal, limits=limits).whole()[0]


def array_rows(
    name: str, array: np.ndarray, *, thermal: bool = False, limits: tuple[float, float] | None = None
) -> Rows:
    """Return a picture array by rows ``(1, C, H, W)``, float32 in [0, 1]; see :func:`array_to_tensor`.

    Integers stay as they are until their rows are asked for.
    """
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or 0 in array.shape:
        raise ValueError(f"{name} must have shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {array.shape}")
    array = array[:, :, None] if array.ndim == 2 else array[:, :, :3]
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    real = np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)
    if limits is not None and real:
        limits = check_range("limits", limits)
    elif np.issubdtype(array.dtype, np.floating):
        array = array.astype(np.float32)
        check_values(name, torch.from_numpy(array))
    elif array.dtype not in (np.uint8, np.uint16):
        raise TypeError(f"{name} must be uint8, uint16 or float in [0, 1], got dtype {array.dtype}")
    if limits is None and thermal and array.dtype == np.uint16:
        limits = thermal_limits(array)
    full = {1: 255, 2: 65535}.get(array.dtype.itemsize, 1)

    def read(first: int, last: int) -> Tensor:
        part = array[first:last]
        scaled = part.astype(np.float32) / full if limits is None else scale_range(part, *limits)
        return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1)))[None]

    if limits is not None and np.issubdtype(array.dtype, np.floating):
        check_values(name, torch.from_numpy(scale_range(array, *limits)))  # there may be NaN
    height, width = array.shape[:2]
    return Rows(read, Shape(1, height, width), height)


def tensor_to_array(picture: Tensor) -> np.ndarray:
    """Return a picture tensor ``(C, H, W)`` in [0, 1] as an array ``(H, W, C)`` of uint8, ``(H, W)`` for one channel.

    Args:
        picture: ``(C, H, W)``; values outside [0, 1] are clipped.

    Raises:
        ValueError: If the tensor is not ``(C, H, W)``.

    Example:
        >>> import torch
        >>> from fusionblocks.image import tensor_to_array
        >>> tensor_to_array(torch.tensor([[[0.0, 0.5, 1.0]]])).tolist()
        [[0, 128, 255]]
    """
    if picture.ndim != 3:
        raise ValueError(f"picture must have shape (C, H, W), got {tuple(picture.shape)}")
    levels = (picture.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
    array = levels.permute(1, 2, 0).cpu().numpy()
    return array[:, :, 0] if array.shape[2] == 1 else array
