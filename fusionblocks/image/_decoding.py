"""From the bytes of a picture file to its array, at full depth, or an error that says what is wrong."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import BinaryIO

import imagecodecs
import numpy as np
import tifffile
from PIL import BmpImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin
from tifffile import COMPRESSION, PHOTOMETRIC, SAMPLEFORMAT

# the plug-ins themselves: Image.open tries others too, and up to twice its limit only warns of a decompression bomb
_OPENERS: dict[bytes, Callable[[BinaryIO], ImageFile.ImageFile]] = {
    b"\x89PNG\r\n\x1a\n": PngImagePlugin.PngImageFile,
    b"\xff\xd8\xff": JpegImagePlugin.JpegImageFile,
    b"BM": BmpImagePlugin.BmpImageFile,
}
_TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ORIENTATION = 0x0112
# sizes, samples, colours, strips and tiles of a TIFF, and what else decides how its bytes become a picture
_LAYOUT_TAGS = {
    *range(254, 260),
    262,
    266,
    *range(273, 281),
    284,
    317,
    320,
    *range(322, 326),
    338,
    339,
    347,
    *range(529, 533),
}
_lock = threading.Lock()


@contextmanager
def no_truncated_pictures() -> Iterator[None]:
    """Overrule a program that told Pillow to fill up truncated pictures with gray."""
    if not ImageFile.LOAD_TRUNCATED_IMAGES:
        yield
        return
    with _lock:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = True


def decode(file: BinaryIO, raw: bool = False, any_float: bool = False) -> np.ndarray:
    """Return the upright picture of an open file, in colour or, if ``raw``, by its samples as they lie.

    Float samples must lie in [0, 1] unless ``any_float``.
    """
    head = file.read(8)
    file.seek(0)
    if not head:
        raise ValueError("the file is empty")
    if head.startswith(_TIFF_HEADS):
        return _decode_tiff(file, raw, any_float)
    if head.startswith(b"\x93NUMPY"):
        return _sound(np.load(file, allow_pickle=False), any_float)
    if head[:2] == b"P5":
        return _decode_pgm(file)
    for magic, opener in _OPENERS.items():
        if head.startswith(magic):
            return _decode_pillow(file, opener, raw)
    raise ValueError("it is not a PNG, TIFF, JPEG, BMP, PGM or .npy picture")


def pixels(image: Image.Image, raw: bool = False) -> np.ndarray:
    """Return the pixels of a PIL image as ``(H, W)`` or ``(H, W, 3)``, without its alpha.

    If ``raw``, a palette picture gives its indices and an RGBA one all four samples.
    """
    mode = image.mode
    if 0 in image.size:
        raise ValueError("it has no pixels")
    if raw and mode in ("P", "RGBA"):
        return np.array(image)
    if mode == "1":
        image = image.convert("L")
    elif mode in ("La", "RGBa"):  # premultiplied
        return pixels(image.convert("LA" if mode == "La" else "RGBA"))
    elif mode == "LA":
        image = image.getchannel("L")
    elif mode in ("P", "PA", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"):
        image = image.convert("RGB")
    elif mode == "I":
        raise ValueError("it has integer samples of 32 bits, expected 8 or 16 bits")
    elif mode not in ("L", "RGB", "F") and not mode.startswith("I;16"):
        raise ValueError(f"its mode {mode} is not supported")
    array = np.array(image)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _check_size(width: int, height: int) -> None:
    # Pillow warns from its limit on and refuses from twice that on
    limit = None if Image.MAX_IMAGE_PIXELS is None else 2 * Image.MAX_IMAGE_PIXELS
    size = f"{height}x{width} (height x width)"
    if width < 1 or height < 1:
        raise ValueError(f"it has no pixels: {size}")
    if limit is not None and width * height > limit:
        raise ValueError(
            f"its size {size} exceeds the limit of {limit} pixels; "
            "for a picture that you trust, raise PIL.Image.MAX_IMAGE_PIXELS"
        )


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turn a picture by its EXIF orientation: 5 to 8 are transposed, then rows or columns may run backwards."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def _decode_pillow(file: BinaryIO, opener: Callable[[BinaryIO], ImageFile.ImageFile], raw: bool) -> np.ndarray:
    def reopen() -> ImageFile.ImageFile:
        file.seek(0)
        return opener(file)

    image = opener(file)
    _check_size(*image.size)
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise ValueError(f"it is an animation of {frames} frames, expected one picture")
    if image.format == "PNG":
        image.verify()  # the checksums, which decoding does not look at
        image = reopen()
    if image.format == "PNG" and _rawmode(image).endswith(";16B") and image.mode != "I;16":
        array = _sixteen_bit_png(file)
    else:
        rawmode = _rawmode(image)
        array = pixels(image, raw)
        array = _unscaled(array, rawmode) if raw else array
    return upright(array, image.getexif().get(ORIENTATION, 1))


def _rawmode(image: ImageFile.ImageFile) -> str:
    """Return how the samples lie in the file, in Pillow's terms (``"RGB;16B"``: sixteen bits, high byte first)."""
    args = image.tile[0].args if image.tile else None
    args = args[0] if isinstance(args, tuple) and args else args
    return args if isinstance(args, str) else ""


def _unscaled(array: np.ndarray, rawmode: str) -> np.ndarray:
    """Return gray samples of one, two or four bits as they lie; Pillow spreads them over 0 to 255."""
    spread = {"1": 255, "L;2": 85, "L;4": 17}
    return next((array // step for kind, step in spread.items() if rawmode.startswith(kind)), array)


def _sixteen_bit_png(file: BinaryIO) -> np.ndarray:
    """Decode colour samples of sixteen bits, of which Pillow keeps the high byte only; alpha is dropped."""
    file.seek(0)
    array = imagecodecs.png_decode(file.read())
    return array[..., 0] if array.shape[2] == 2 else array[..., :3]


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """Collect what tifffile logs in this thread about tags it gave up on, instead of printing it."""
    messages: list[str] = []
    thread = threading.get_ident()

    def collect(record: logging.LogRecord) -> bool:
        if record.thread != thread:
            return True
        messages.append(record.getMessage())
        return False

    logger = logging.getLogger("tifffile")
    logger.addFilter(collect)
    try:
        yield messages
    finally:
        logger.removeFilter(collect)


def _decode_tiff(file: BinaryIO, raw: bool, any_float: bool) -> np.ndarray:
    with _complaints() as complaints, tifffile.TiffFile(file) as tiff:
        page = _only_page(tiff)
        damaged = {int(code) for text in complaints for code in re.findall(r"TiffTag (\d+) ", text)} & _LAYOUT_TAGS
        if damaged:
            raise ValueError(f"its tags are damaged: {', '.join(map(str, sorted(damaged)))}")
        _check_size(page.imagewidth, page.imagelength)
        _check_layout(page)
        _check_complete(page, file)
        unsigned = page.sampleformat == SAMPLEFORMAT.UINT
        if page.bitspersample <= 8 and unsigned and _known_to_pillow(page):
            return _pillow_tiff(file, raw)
        array = _samples(page)
    array = _sound(array, any_float)
    real = array.dtype == np.float32
    if page.photometric == PHOTOMETRIC.MINISWHITE:
        return (1 if real else np.iinfo(array.dtype).max) - array
    return array


def _sound(array: np.ndarray, any_float: bool) -> np.ndarray:
    """Return samples as uint8 or uint16 if they are whole and fit, else as float32.

    Raises:
        ValueError: If the shape is not a picture's, the samples are not real numbers, or floats are not in [0, 1] and
            must be.
    """
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)) or 0 in array.shape:
        raise ValueError(f"its shape is {array.shape}, expected (H, W) or (H, W, 3)")
    _check_size(array.shape[1], array.shape[0])
    if array.dtype in (np.uint8, np.uint16):
        return array
    if np.issubdtype(array.dtype, np.integer):
        if array.min() >= 0 and array.max() <= 65535:
            return array.astype(np.uint16)
        if not any_float:
            raise ValueError(f"it has {array.dtype} samples from {array.min()} to {array.max()}, expected 0 to 65535")
    elif not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"it has samples of dtype {array.dtype}, expected real numbers")
    elif not any_float and not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
        raise ValueError(
            "it has float samples that are not all in [0, 1]; thermal_range says which values are black and white"
        )
    return array.astype(np.float32)


def _decode_pgm(file: BinaryIO) -> np.ndarray:
    """Return the gray levels of a binary PGM; Pillow would stretch those of more than eight bits."""
    content = file.read()
    header = re.match(rb"P5(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)\s", content)
    if header is None:
        raise ValueError("its header is not a PGM's")
    width, height, most = (int(number) for number in header.groups())
    _check_size(width, height)
    if not 0 < most < 65536:
        raise ValueError(f"its largest value is {most}, expected 1 to 65535")
    dtype = np.dtype(">u2" if most > 255 else "u1")
    body = content[header.end() :]
    if len(body) < width * height * dtype.itemsize:
        raise ValueError(f"it is truncated: {len(body)} of {width * height * dtype.itemsize} bytes are there")
    return np.frombuffer(body, dtype, width * height).reshape(height, width).astype(dtype.newbyteorder("="))


def _only_page(tiff: tifffile.TiffFile) -> tifffile.TiffPage:
    if len(tiff.pages) == 0:
        raise ValueError("it holds no picture")
    page = tiff.pages.first
    extra = [other for other in list(tiff.pages)[1:] if not (other.is_reduced or other.is_mask)]
    stacked = (tiff.is_imagej or tiff.is_shaped) and tiff.series[0].size > page.size
    if extra or stacked or page.imagedepth > 1:
        raise ValueError(f"it holds several pictures ({len(extra) + 1} pages), expected one")
    return page


def _check_layout(page: tifffile.TiffPage) -> None:
    bits, kind = page.bitspersample, page.sampleformat
    known = {
        SAMPLEFORMAT.UINT: (1, 2, 4, 8, 16, 32),
        SAMPLEFORMAT.INT: (8, 16, 32),
        SAMPLEFORMAT.IEEEFP: (16, 32, 64),
    }
    if bits not in known.get(kind, ()):
        raise ValueError(
            f"it has {_name(SAMPLEFORMAT, kind)} samples of {bits} bits, expected UINT of 1 to 32 bits, INT of 8 to 32 "
            "or IEEEFP of 16 to 64"
        )
    if bits <= 8 and kind == SAMPLEFORMAT.UINT and _known_to_pillow(page):
        return
    if bits < 8:
        raise ValueError(f"it has samples of {bits} bits with the compression {_name(COMPRESSION, page.compression)}")
    colours = {PHOTOMETRIC.MINISBLACK: 1, PHOTOMETRIC.MINISWHITE: 1, PHOTOMETRIC.RGB: 3}.get(page.photometric)
    if colours is None:
        colour = _name(PHOTOMETRIC, page.photometric)
        raise ValueError(f"it has {colour} samples of {bits} bits, expected gray or RGB at this depth")
    if page.samplesperpixel not in (colours, colours + 1):
        raise ValueError(f"it has {page.samplesperpixel} samples a pixel, expected gray or RGB, with or without alpha")
    if tuple(page.extrasamples) == (tifffile.EXTRASAMPLE.ASSOCALPHA,):
        raise ValueError(f"it has premultiplied alpha at {bits} bits, which is not supported")


def _name(kinds: type[IntEnum], value: int) -> str:
    try:
        return kinds(value).name
    except ValueError:
        return f"unknown ({value})"


def _check_complete(page: tifffile.TiffPage, file: BinaryIO) -> None:
    """Raise unless every strip or tile lies within the file; decoders fill up what is missing."""
    end = file.seek(0, os.SEEK_END)
    expected = int(np.prod(page.chunked))
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    whole = [start > 0 and count > 0 and start + count <= end for start, count in segments]
    if len(segments) < expected or not all(whole):
        raise ValueError(f"it is truncated: {sum(whole)} of {expected} strips or tiles are there")
    if page.compression == COMPRESSION.NONE:
        available = sum(page.databytecounts)
        needed = -(-page.imagewidth * page.samplesperpixel * page.bitspersample // 8) * page.imagelength
        if available < needed and page.photometric != PHOTOMETRIC.YCBCR:
            raise ValueError(f"it is truncated: {available} of {needed} bytes are there")


def _known_to_pillow(page: tifffile.TiffPage) -> bool:
    """Whether Pillow decompresses a page; its builds differ in what they know of the newer kinds."""
    newer = (COMPRESSION.WEBP, COMPRESSION.ZSTD, COMPRESSION.LZMA)
    return page.compression in TiffImagePlugin.COMPRESSION_INFO and page.compression not in newer


def _samples(page: tifffile.TiffPage) -> np.ndarray:
    """Decode gray or RGB samples of eight bits or more, in any compression that imagecodecs knows."""
    samples = page.asarray(squeeze=False)  # (planes, depth, height, width, samples)
    array = np.moveaxis(samples[:, 0], 0, 2)[:, :, :, 0] if samples.shape[0] > 1 else samples[0, 0]
    tag = page.tags.get(ORIENTATION)
    array = array[..., :3] if page.photometric == PHOTOMETRIC.RGB else array[..., 0]
    return upright(array, tag.value if tag is not None else 1)


def _pillow_tiff(file: BinaryIO, raw: bool = False) -> np.ndarray:
    """Decode with Pillow, which turns TIFF upright by itself."""
    file.seek(0)
    image = TiffImagePlugin.TiffImageFile(file)
    rawmode = _rawmode(image)
    array = pixels(image, raw)
    return _unscaled(array, rawmode) if raw else array
