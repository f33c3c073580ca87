"""Thermal pictures with their unit: counts, degrees or kelvins, and where there are no data."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fusionblocks.image.io import read_image
from fusionblocks.image.thermal import with_data

ZERO = 273.15
CENTIKELVIN = (23315, 37315)
"""Counts of -40 to 100 degrees Celsius in hundredths of a kelvin: a scene within them is taken to be in that unit."""
KELVIN = (200.0, 400.0)
"""Values of floats that are taken for kelvins rather than for degrees Celsius."""
_FLIR, _DJI = b"FLIR\0", b"DJI"


class ThermalPicture(NamedTuple):
    """What :func:`read_thermal` returns.

    Args:
        values: ``(H, W)``, uint8 or uint16 as stored, or float32.
        unit: ``"celsius"``, ``"kelvin"``, ``"centikelvin"``, ``"counts"`` (of a camera that is not calibrated),
            ``"levels"`` (8 bits) or ``"relative"`` (floats in [0, 1]).
        no_data: ``(H, W)`` of booleans: NaN, infinite, and extreme codes that stand apart from the scene.
    """

    values: np.ndarray
    unit: str
    no_data: np.ndarray

    def celsius(self) -> np.ndarray:
        """Return temperatures in degrees Celsius, ``(H, W)`` float32, NaN where there are no data.

        Raises:
            ValueError: If the unit is not one of temperature.
        """
        scale, offset = {"celsius": (1.0, 0.0), "kelvin": (1.0, -ZERO), "centikelvin": (0.01, -ZERO)}.get(
            self.unit, (0.0, 0.0)
        )
        if scale == 0:
            raise ValueError(f"a picture in {self.unit} has no temperatures")
        return np.where(self.no_data, np.nan, self.values.astype(np.float64) * scale + offset).astype(np.float32)


def read_thermal(path: str | os.PathLike[str]) -> ThermalPicture:
    """Read what a thermal camera wrote: its values, their unit, and where there are no data.

    Read are TIFF and ``.npy`` of integers and floats of any width, PNG and PGM of 8 and 16 bits, JPEG, and radiometric
    JPEG of FLIR cameras, whose raw counts become temperatures by the constants in the file, for the emissivity and the
    reflected temperature that the camera was set to; the air between is left aside.

    Files do not say their unit, but for FLIR's. Floats in [0, 1] are ``"relative"``, floats about 200 to 400
    ``"kelvin"``, others ``"celsius"``; integers whose scene lies between -40 and 100 degrees in hundredths of a kelvin
    are ``"centikelvin"``, other integers of more than eight bits ``"counts"``.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read, holds a colour picture, or is a radiometric JPEG of DJI, whose raw data only
            DJI's own tool reads.

    Reference:
        Planck's law in the form of FLIR's constants; the places of the constants in the file are those that ExifTool's
        documentation of FLIR tags lists.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import fusionblocks as fb
        >>> file = f"{tempfile.mkdtemp()}/thermal.tiff"
        >>> fb.image.write_image(file, np.linspace(29000, 31000, 100).reshape(10, 10).astype(np.uint16))
        >>> picture = fb.read_thermal(file)
        >>> picture.unit, picture.celsius().min().round(2)
        ('centikelvin', np.float32(16.85))
    """
    path = Path(path)
    found = read_radiometric(path)
    if found is not None:
        return found
    values = read_image(path, any_float=True)
    if values.ndim == 3:
        same = (values == values[..., :1]).all()
        if not same:
            raise ValueError(f"{path} holds a colour picture, expected gray levels, counts or temperatures")
        values = values[..., 0]
    return thermal_picture(values)


def thermal_picture(values: np.ndarray) -> ThermalPicture:
    """Return values with the unit that they seem to have, and where there are no data.

    Args:
        values: ``(H, W)``, uint8, uint16 or float.

    Example:
        >>> import numpy as np
        >>> from fusionblocks.image import thermal_picture
        >>> thermal_picture(np.array([[20.5, np.nan], [31.0, 24.0]])).unit
        'celsius'
    """
    if values.dtype == np.uint8:
        return ThermalPicture(values, "levels", np.zeros(values.shape, bool))
    if np.issubdtype(values.dtype, np.integer):
        low, high = with_data(values)
        no_data = (values < low) | (values > high)
        scene = values[~no_data]
        within = scene.size and CENTIKELVIN[0] <= np.percentile(scene, 1) <= np.percentile(scene, 99) <= CENTIKELVIN[1]
        return ThermalPicture(values, "centikelvin" if within else "counts", no_data)
    no_data = ~np.isfinite(values)
    scene = values[~no_data]
    middle = float(np.median(scene)) if scene.size else 0.0
    if scene.size and scene.min() >= 0 and scene.max() <= 1:
        unit = "relative"
    else:
        unit = "kelvin" if KELVIN[0] <= middle <= KELVIN[1] else "celsius"
    return ThermalPicture(values.astype(np.float32, copy=False), unit, no_data)


# --- radiometric JPEG ------------------------------------------------------------------------------------------------


def read_radiometric(path: str | os.PathLike[str]) -> ThermalPicture | None:
    """Return the temperatures within a radiometric JPEG, None for any other file.

    Args:
        path: The file.

    Raises:
        ValueError: If its radiometric data are damaged, or DJI's.

    No example: it wants a camera's file.
    """
    path = Path(path)
    if not path.is_file():
        return None
    with path.open("rb") as file:
        if file.read(2) != b"\xff\xd8":
            return None
        file.seek(0)
        content = file.read()
    parts: dict[int, bytes] = {}
    place, dji = 2, False
    while place + 4 <= len(content) and content[place] == 0xFF:
        marker, length = content[place + 1], int.from_bytes(content[place + 2 : place + 4], "big")
        if marker == 0xDA or length < 2:  # the picture begins
            break
        body = content[place + 4 : place + 2 + length]
        if marker == 0xE1 and body.startswith(_FLIR) and len(body) > 8:
            parts[body[6]] = body[8:]
        dji = dji or (0xE3 <= marker <= 0xE7 and body.startswith(_DJI))
        place += 2 + length
    if dji:
        raise ValueError(
            f"{path} is a radiometric JPEG of DJI, whose raw data only DJI's Thermal SDK reads: "
            "convert it with dji_irp --action measure to a TIFF or .npy first"
        )
    if not parts:
        return None
    try:
        return _flir(b"".join(parts[key] for key in sorted(parts)))
    except (struct.error, IndexError, ValueError, ZeroDivisionError) as error:
        raise ValueError(f"cannot read {path}: its radiometric data are damaged: {error}") from error


def _flir(data: bytes) -> ThermalPicture:
    """Return the temperatures of FLIR's records."""
    if data[:4] not in (b"FFF\0", b"AFF\0"):
        raise ValueError("they do not begin as FLIR's do")
    order = ">" if struct.unpack_from(">I", data, 0x14)[0] in range(100, 200) else "<"
    start, count = struct.unpack_from(f"{order}II", data, 0x18)
    records = {}
    for i in range(count):
        kind, _, _, _, offset, length = struct.unpack_from(f"{order}HHIIII", data, start + 32 * i)
        records[kind] = data[offset : offset + length]
    if 1 not in records or 0x20 not in records:
        raise ValueError("they lack the raw picture or the camera's constants")
    raw = _raw(records[1])
    info = records[0x20]
    own = "<" if struct.unpack_from("<H", info, 0)[0] == 2 else ">"
    (emissivity,) = struct.unpack_from(f"{own}f", info, 0x20)
    (reflected,) = struct.unpack_from(f"{own}f", info, 0x28)
    r1, b, f = struct.unpack_from(f"{own}fff", info, 0x58)
    offset, r2 = struct.unpack_from(f"{own}if", info, 0x308)
    if not (0 < emissivity <= 1 and r1 > 0 and r2 > 0 and b > 0):
        raise ValueError("the camera's constants are out of range")
    # Planck's law in the camera's form: counts that a black body of a temperature would give
    from_reflection = r1 / (r2 * (np.exp(b / reflected) - f)) - offset if reflected > 0 else 0.0
    counts = (raw.astype(np.float64) - (1 - emissivity) * from_reflection) / emissivity
    with np.errstate(invalid="ignore", divide="ignore"):
        kelvin = b / np.log(r1 / (r2 * (counts + offset)) + f)
    values = np.where(np.isfinite(kelvin), kelvin - ZERO, np.nan).astype(np.float32)
    return ThermalPicture(values, "celsius", ~np.isfinite(values))


def _raw(record: bytes) -> np.ndarray:
    """Return the raw counts ``(H, W)`` uint16 of FLIR's record, a PNG of either byte order or plain samples."""
    order = "<" if struct.unpack_from("<H", record, 0)[0] == 2 else ">"
    width, height = struct.unpack_from(f"{order}HH", record, 2)
    body = record[32:]
    if body.startswith(b"\x89PNG"):
        import imagecodecs

        picture = np.ascontiguousarray(imagecodecs.png_decode(body))
        if picture.dtype != np.uint16 or picture.shape != (height, width):
            raise ValueError(
                f"the raw picture is {picture.shape} of {picture.dtype}, expected {(height, width)} of uint16"
            )
        # cameras wrote the bytes in either order; the wrong one makes noise of every edge
        return min((picture, picture.byteswap()), key=_roughness)
    if len(body) < 2 * width * height or width * height == 0:
        raise ValueError(f"the raw picture is cut off: {len(body)} of {2 * width * height} bytes")
    return np.frombuffer(body, f"{order}u2", width * height).reshape(height, width).astype(np.uint16)


def _roughness(picture: np.ndarray) -> float:
    return float(np.abs(np.diff(picture.astype(np.int64), axis=1)).mean()) if picture.shape[1] > 1 else 0.0
