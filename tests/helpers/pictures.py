"""Picture files of every kind that users bring, some written from their specification."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from fusionblocks.image import read_image

HEIGHT, WIDTH = 13, 17


# where the picture's pixels lie when it is stored under each EXIF orientation
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),  # to be turned clockwise by the reader
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


def samples(*shape: int, dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


GRAY8, RGB8, RGBA8 = samples(HEIGHT, WIDTH), samples(HEIGHT, WIDTH, 3), samples(HEIGHT, WIDTH, 4)
GRAY16, RGB16 = samples(HEIGHT, WIDTH, dtype=np.uint16), samples(HEIGHT, WIDTH, 3, dtype=np.uint16)
RGBA16, LA16 = samples(HEIGHT, WIDTH, 4, dtype=np.uint16), samples(HEIGHT, WIDTH, 2, dtype=np.uint16)


# first column and row, and steps, of the seven passes of an interlaced PNG
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def png(array: np.ndarray, color_type: int, bits: int = 16, extra: bytes = b"", layout: str = "plain") -> bytes:
    """A PNG file written from its specification, since Pillow writes no 16-bit colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    array = array.astype(">u2" if bits == 16 else np.uint8)
    height, width = array.shape[:2]
    lines = []
    for x, y, across, down in ADAM7 if layout == "interlaced" else [(0, 0, 1, 1)]:
        part = np.ascontiguousarray(array[y::down, x::across])
        rows = part.view(np.uint8).reshape(part.shape[0], -1)
        step = rows.shape[1] // max(part.shape[1], 1)
        for i, row in enumerate(rows if rows.size else ()):
            left = np.concatenate((np.zeros(step, np.uint8), row[:-step]))
            above = rows[i - 1] if i else np.zeros_like(row)
            kind = 0 if layout == "plain" else i % 3
            lines.append(bytes([kind]) + (row - (0, left, above)[kind]).astype(np.uint8).tobytes())
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, layout == "interlaced")
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(b"".join(lines))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def exif_chunk(orientation: int) -> bytes:
    data = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + struct.pack("<HHI", orientation, 0, 0)
    return struct.pack(">I", len(data)) + b"eXIf" + data + struct.pack(">I", zlib.crc32(b"eXIf" + data))


def lzw(data: bytes) -> bytes:
    """LZW as TIFF has it, clearing the table before its codes outgrow nine bits: valid, if no smaller."""
    codes = []
    for start in range(0, len(data), 200):
        codes += [256, *data[start : start + 200]]
    bits = "".join(f"{code:09b}" for code in [*codes, 257])
    return bytes(int(bits[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(bits), 8))


def tiff_bytes(array: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **{"metadata": None, **options})
    return buffer.getvalue()


def read(folder: Path, data: bytes, name: str = "picture.dat") -> np.ndarray:
    file = folder / name
    file.write_bytes(data)
    array = read_image(file)
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert array.dtype.isnative
    return array


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def assert_same(array: np.ndarray, expected: np.ndarray) -> None:
    assert array.dtype == expected.dtype
    assert array.shape == expected.shape
    assert np.array_equal(array, expected)


def lzw_tiff(file: Path, array: np.ndarray, byteorder: str, **options: object) -> Path:
    """Write an LZW file, which tifffile does not do by itself: exchange the strip of a plain file."""
    plain = tiff_bytes(array, byteorder=byteorder, rowsperstrip=array.shape[0], **options)
    compressed = lzw(array.astype(array.dtype.newbyteorder(byteorder)).tobytes())
    file.write_bytes(plain + compressed)
    with tifffile.TiffFile(file, mode="r+") as tiff:
        tags = tiff.pages.first.tags
        for name, value in {"Compression": 5, "StripOffsets": len(plain), "StripByteCounts": len(compressed)}.items():
            tags[name].overwrite(value)
    return file


TRUNCATABLE = {
    "png": png(RGB8, 2, 8, layout="filtered"),
    "png-16": png(RGB16, 2),
    "png-gray-16": png(GRAY16, 0),
    "jpeg": saved(Image.fromarray(RGB8), "JPEG", quality=90),
    "jpeg-progressive": saved(Image.fromarray(RGB8), "JPEG", quality=90, progressive=True),
    "bmp": saved(Image.fromarray(RGB8), "BMP"),
    "tiff": tiff_bytes(RGB8, photometric="rgb"),
    "tiff-16": tiff_bytes(GRAY16),
    "tiff-16-zlib": tiff_bytes(RGB16, photometric="rgb", compression="zlib", rowsperstrip=4),
    "tiff-16-tiled": tiff_bytes(GRAY16, tile=(16, 16)),
    "tiff-pillow": saved(Image.fromarray(RGB8), "TIFF"),
    "tiff-lzw": saved(Image.fromarray(RGB8), "TIFF", compression="tiff_lzw"),
    "tiff-16-lzw": saved(Image.fromarray(GRAY16), "TIFF", compression="tiff_lzw"),
}
