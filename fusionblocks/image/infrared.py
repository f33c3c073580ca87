"""Any infrared picture in its own unit, with what becomes black and white: the one way by which all parts read them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from fusionblocks.image.io import image_to_array, read_image
from fusionblocks.image.palettes import intensities
from fusionblocks.image.radiometric import read_radiometric
from fusionblocks.image.thermal import auto_range, check_range

ThermalRange = tuple[float, float] | Literal["auto", "scene"] | None
"""What becomes black and white: numbers in the picture's own unit, or where they come from."""
MOST_LOOKED_AT = 50
"""Pictures of a sequence whose range is taken; of more, as many at equal distances."""
SCENE_PIXELS = 2**22
"""Pixels of all pictures together from which the range of a sequence is taken."""
BAND = 8
"""Rows that are taken together, so that squares of a scene stay squares."""


class Infrared(NamedTuple):
    """An infrared picture in its own unit.

    Args:
        values: ``(H, W)`` or ``(H, W, C)``: uint8, uint16 or float.
        limits: What becomes 0 and 1; None for 16-bit counts over the scene's own range, and others as they are.
    """

    values: np.ndarray
    limits: tuple[float, float] | None


def open_infrared(name: str, picture: Any, thermal_range: ThermalRange = None) -> Infrared:
    """Return any infrared picture in its own unit, with what becomes black and white.

    Pictures in the false colours of a known palette become intensities, with a warning. Where a camera has no data
    (NaN, infinite), a picture whose range is known is filled from around, with a warning.

    Args:
        name: The argument's name, for errors.
        picture: A path, a PIL image or an array.
        thermal_range: Numbers in the picture's own unit, or ``"auto"``, the picture's own range, which ``"scene"`` is
            for a single picture; None takes that of radiometric files and 16-bit counts, and others as they are.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If the picture or the range is of another kind.
        ValueError: If it cannot be read, or is in false colours of an unknown palette, or the range is none.

    Example:
        >>> import numpy as np
        >>> from fusionblocks.image import open_infrared
        >>> degrees = np.linspace(20, 40, 64, dtype=np.float32).reshape(8, 8)
        >>> [round(limit, 1) for limit in open_infrared("infrared", degrees, "auto").limits]
        [20.1, 39.9]
    """
    own = isinstance(thermal_range, str)
    if own and thermal_range not in ("auto", "scene"):
        raise ValueError(f"thermal_range must be two numbers, 'auto', 'scene' or None, got {thermal_range!r}")
    limits = None if thermal_range is None or own else check_range("thermal_range", thermal_range)
    values = None
    if isinstance(picture, str | os.PathLike):
        radiometric = read_radiometric(picture)
        if radiometric is not None:
            values, own = radiometric.values, own or limits is None
        else:
            values = read_image(picture, any_float=True)
            if not own and limits is None:
                _check_relative(picture, values)
    elif isinstance(picture, Image.Image):
        values = image_to_array(picture, name)
    elif isinstance(picture, np.ndarray):
        values = picture
    if values is None:
        raise TypeError(f"{name} must be a path, a PIL image, an array or a tensor, got {type(picture).__name__}")
    values, palette = intensities(name, values)
    if palette is not None:
        warnings.warn(f"{name} is in false colours, palette {palette}: its intensities are taken", stacklevel=4)
    if own:
        limits = auto_range(values)
    return Infrared(_filled(name, values) if limits is not None else values, limits)


def _check_relative(path: str | os.PathLike[str], values: np.ndarray) -> None:
    """Raise unless floats of a file are levels from 0 to 1."""
    if np.issubdtype(values.dtype, np.floating) and not ((values >= 0) & (values <= 1)).all():
        known = values[np.isfinite(values)]
        found = f"from {known.min():g} to {known.max():g}" if known.size else "without a number"
        raise ValueError(
            f"cannot read {path}: it has floats {found}, not all in [0, 1]: say by thermal_range what is black and "
            "white, in their own unit, or 'auto'"
        )


def values_of(name: str, picture: Any) -> np.ndarray:
    """Return the values of an infrared picture in their own unit, whatever they are.

    Args:
        name: The argument's name, for errors.
        picture: A path, a PIL image or an array.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If it is of another kind.
        ValueError: If it cannot be read.

    No example: :func:`fusionblocks.align` calls it.
    """
    return open_infrared(name, picture, "auto").values


def scene_range(pictures: Iterable[Any]) -> tuple[float, float] | None:
    """Return one range for all infrared pictures of a sequence, in their own unit.

    It is what :func:`auto_range` says of the pictures together, of up to fifty at equal distances.

    Args:
        pictures: Paths, PIL images or arrays, all of one unit.

    Returns:
        Two numbers, the first below the second; None for 8-bit pictures, whose levels stay.

    Raises:
        ValueError: If there is no picture, one cannot be read, or they are of several dtypes.

    Example:
        >>> import numpy as np
        >>> from fusionblocks.image import scene_range
        >>> warmer = [np.full((16, 16), 29000 + 100 * i, np.uint16) for i in range(20)]
        >>> scene_range(warmer)
        (29000.0, 30900.0)
    """
    looked_at = list(pictures)
    if not looked_at:
        raise ValueError("pictures must hold at least one picture, got none")
    if len(looked_at) > MOST_LOOKED_AT:
        looked_at = [looked_at[round(i)] for i in np.linspace(0, len(looked_at) - 1, MOST_LOOKED_AT)]
    parts = [_bands(values_of("infrared", picture), SCENE_PIXELS // len(looked_at)) for picture in looked_at]
    dtypes = sorted({str(part.dtype) for part in parts})
    if len(dtypes) > 1:
        raise ValueError(f"the infrared pictures of a sequence must have one dtype, got {' and '.join(dtypes)}")
    width = min(part.shape[1] for part in parts)
    return auto_range(np.concatenate([part[:, :width] for part in parts]))


def _bands(values: np.ndarray, pixels: int) -> np.ndarray:
    """Return about so many pixels of a picture, in bands of rows at equal distances."""
    values = values.mean(axis=2).astype(values.dtype) if values.ndim == 3 else values
    height, width = values.shape
    bands = max(1, pixels // (BAND * width))
    if bands * BAND >= height:
        return values
    starts = np.linspace(0, height - BAND, bands).round().astype(int)
    return np.concatenate([values[start : start + BAND] for start in starts])


def _filled(name: str, values: np.ndarray) -> np.ndarray:
    """Return values whose places without data are filled from around."""
    if not np.issubdtype(values.dtype, np.floating):
        return values
    known = np.isfinite(values)
    missing = values.size - int(known.sum())
    if not missing or missing == values.size:
        return values
    warnings.warn(f"{name} has no data in {missing} of {values.size} pixels: they are filled from around", stacklevel=5)
    layers = values[..., None] if values.ndim == 2 else values
    filled = [_pulled(layers[..., i], np.isfinite(layers[..., i])) for i in range(layers.shape[2])]
    return np.stack(filled, axis=-1).reshape(values.shape)


def _pulled(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return a map whose unknown values are means over the smallest squares around that know one."""
    if known.all() or not known.any():
        return values
    height, width = values.shape
    padding = ((0, height % 2), (0, width % 2))
    weights = np.pad(known, padding).astype(np.float64)
    sums = np.pad(np.where(known, values, 0).astype(np.float64), padding)
    weights, sums = (x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2).sum(axis=(1, 3)) for x in (weights, sums))
    coarse = _pulled(sums / np.maximum(weights, 1), weights > 0)
    around = coarse.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
    return np.where(known, values, around).astype(values.dtype)


def same_range(range_: ThermalRange, pictures: Sequence[Any]) -> ThermalRange:
    """Return a range that one call for each picture may take: of ``"scene"``, the numbers of all together.

    Args:
        range_: As for :func:`fusionblocks.fuse`.
        pictures: The infrared pictures of the sequence.

    No example: the command line and datasets call it.
    """
    if isinstance(range_, str) and range_ == "scene":
        return scene_range(pictures)
    return range_
