"""Reading pictures without losing a bit or accepting half of one, and writing them whole or not at all."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tifffile
from PIL import Image

from fusionblocks._support.files import whole_file
from fusionblocks.image._decoding import ORIENTATION, decode, no_truncated_pictures, pixels, upright

#: Suffixes that :func:`write_image` knows, in lower case.
WRITABLE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff"})
#: Suffixes of the files that :func:`read_image` reads; it goes by their content.
READABLE_SUFFIXES = WRITABLE_SUFFIXES | {".npy", ".pgm"}

# what Pillow, tifffile, imagecodecs and zlib raise on damaged files, and on what they cannot decompress
_DAMAGE = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, MemoryError,
    ZeroDivisionError, RuntimeError, ImportError, struct.error, zlib.error, tifffile.TiffFileError,
)  # fmt: skip


def read_image(path: str | os.PathLike[str], *, raw: bool = False, any_float: bool = False) -> np.ndarray:
    """Read a PNG, TIFF, JPEG, BMP, PGM or ``.npy`` picture, at its own depth.

    The orientation that a camera noted (EXIF) is applied. Alpha is dropped: a transparent pixel keeps its colour.
    Palette, CMYK and YCbCr pictures become RGB, black-and-white ones gray with 0 and 255. Colour profiles and gamma
    notes are left aside. Sixteen bits stay sixteen, in RGB too. A JPEG that carries further pictures (previews, gain
    maps) counts as its first one.

    Args:
        path: The file; its content decides how it is read, not its suffix.
        raw: Leave the samples of a picture of 8 bits or fewer as they lie, for files whose values are not colours: the
            indices of a palette instead of its colours, gray of 1, 2 or 4 bits not spread to 255, and alpha as a fourth
            channel.
        any_float: Take floats of any values, such as degrees, and integers of any range; otherwise floats must lie in
            [0, 1] and integers from 0 to 65535.

    Returns:
        ``(H, W)`` or ``(H, W, 3)``, uint8 or uint16; float32 for floats and wider integers; with ``raw``, also
        ``(H, W, 4)`` uint8.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not a picture of these formats, or is damaged or truncated, or holds several pictures,
            more pixels than twice ``PIL.Image.MAX_IMAGE_PIXELS`` (179 million), or samples of another depth. The
            message names the path and the reason.

    Example:
        >>> import numpy as np
        >>> from fusionblocks.image import read_image, write_image
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_image(f"{folder}/thermal.tiff", np.array([[29000, 29400]], np.uint16))
        ...     read_image(f"{folder}/thermal.tiff")
        array([[29000, 29400]], dtype=uint16)
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no picture {path}")
    if not path.is_file():
        raise ValueError(f"cannot read {path}: it is {'a folder' if path.is_dir() else 'no regular file'}")
    try:
        with path.open("rb") as file, no_truncated_pictures():
            array = decode(file, raw, any_float)
    except _DAMAGE as error:
        raise ValueError(f"cannot read {path}: {str(error) or type(error).__name__}") from error
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))


def image_to_array(image: Image.Image, name: str = "image") -> np.ndarray:
    """Return the pixels of a PIL image as :func:`read_image` does: the orientation that a camera noted is applied.

    Args:
        image: A PIL image: black and white, gray of 8 or 16 bits or float, palette, RGB, CMYK or YCbCr, with or
            without alpha, which is dropped.
        name: The argument's name, for the message.

    Returns:
        ``(H, W)`` or ``(H, W, 3)``, uint8 or uint16; float32 for a float image.

    Raises:
        TypeError: ``image`` is not a PIL image.
        ValueError: The image has no pixels, another mode, or its file is damaged.

    Example:
        >>> from fusionblocks.image import image_to_array
        >>> from PIL import Image
        >>> image_to_array(Image.new("RGBA", (5, 4))).shape
        (4, 5, 3)
    """
    if not isinstance(image, Image.Image):
        raise TypeError(f"{name} must be a PIL image, got {type(image).__name__}")
    try:
        with no_truncated_pictures():
            # Pillow turns TIFF by itself when it decodes, and forgets the note then
            image.load()
            return upright(pixels(image), image.getexif().get(ORIENTATION, 1))
    except _DAMAGE as error:
        raise ValueError(f"{name} cannot be read: {str(error) or type(error).__name__}") from error


def array_to_image(array: np.ndarray) -> Image.Image:
    """Return a picture array as a PIL image, without Pillow's warning of a picture that is large.

    Args:
        array: ``(H, W)`` uint8 or uint16, or ``(H, W, 3)`` uint8.

    Example:
        >>> import numpy as np
        >>> from fusionblocks.image import array_to_image
        >>> array_to_image(np.zeros((4, 6, 3), np.uint8)).size
        (6, 4)
    """
    with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
        return Image.fromarray(array)


def write_image(path: str | os.PathLike[str], array: np.ndarray) -> None:
    """Write a picture whole or not at all: an existing file stays as it is until the new one is complete on disk.

    Args:
        path: The file; its suffix decides the format (``.png``, ``.tif``, ``.tiff``, ``.jpg``, ``.jpeg``, ``.bmp``).
            JPEG is written at quality 95 with full-resolution chroma, TIFF with lossless compression.
        array: ``(H, W)`` or ``(H, W, 3)``, uint8; uint16 as TIFF, or gray as PNG.

    Raises:
        FileNotFoundError: The folder does not exist.
        TypeError: ``array`` is not an array or has another dtype.
        ValueError: The suffix is unknown, the path no regular file, the shape no picture's, or the format cannot hold
            16 bits.

    Example:
        >>> import numpy as np
        >>> from fusionblocks.image import read_image, write_image
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_image(f"{folder}/fused.png", np.zeros((4, 6, 3), np.uint8))
        ...     read_image(f"{folder}/fused.png").shape
        (4, 6, 3)
    """
    suffix = Path(path).suffix.lower()
    if suffix not in WRITABLE_SUFFIXES:
        raise ValueError(f"path must end in one of {', '.join(sorted(WRITABLE_SUFFIXES))}, got {path}")
    array = _writable(array, suffix)
    with whole_file(path) as temporary, temporary.open("xb") as file:
        _encode(file, array, suffix)


def _writable(array: np.ndarray, suffix: str) -> np.ndarray:
    if not isinstance(array, np.ndarray):
        raise TypeError(f"array must be a NumPy array, got {type(array).__name__}")
    if array.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        raise TypeError(f"array must be of dtype uint8 or uint16, got {array.dtype}")
    if array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)) or 0 in array.shape:
        raise ValueError(f"array must have shape (H, W) or (H, W, 3) with at least one pixel, got {array.shape}")
    if array.dtype.itemsize == 2 and not (suffix in (".tif", ".tiff") or (suffix == ".png" and array.ndim == 2)):
        kind = "gray" if array.ndim == 2 else "RGB"
        raise ValueError(f"a 16-bit {kind} picture cannot be written as {suffix}; write .tif, or an array of uint8")
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))


def _encode(file: BinaryIO, array: np.ndarray, suffix: str) -> None:
    if suffix in (".tif", ".tiff"):
        photometric = "rgb" if array.ndim == 3 else "minisblack"
        planar = "contig" if array.ndim == 3 else None
        tifffile.imwrite(
            file, array, photometric=photometric, planarconfig=planar, compression="zlib", metadata=None, software=False
        )
        return
    image = array_to_image(array)
    if suffix in (".jpg", ".jpeg"):
        image.save(file, "JPEG", quality=95, subsampling="4:4:4")
    else:
        image.save(file, {".png": "PNG", ".bmp": "BMP"}[suffix])
