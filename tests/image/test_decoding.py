from __future__ import annotations

import io
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageFile

from fusionblocks.image import read_image
from tests.helpers.pictures import (
    GRAY8,
    GRAY16,
    HEIGHT,
    LA16,
    RGB8,
    RGB16,
    RGBA8,
    RGBA16,
    STORED,
    TRUNCATABLE,
    WIDTH,
    assert_same,
    exif_chunk,
    lzw_tiff,
    png,
    read,
    samples,
    saved,
    tiff_bytes,
)

# ---------------------------------------------------------------- reading: eight bits


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_gray_and_rgb(tmp_path: Path, kind: str) -> None:
    for array in (GRAY8, RGB8, GRAY8[:1], RGB8[:, :1], GRAY8[:1, :1]):
        assert_same(read(tmp_path, saved(Image.fromarray(array), kind)), array)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_alpha_is_dropped_and_transparent_pixels_keep_their_colour(tmp_path: Path, kind: str) -> None:
    array = RGBA8.copy()
    array[:5, :, 3] = 0
    assert_same(read(tmp_path, saved(Image.fromarray(array), kind)), array[..., :3])


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_gray_with_alpha(tmp_path: Path, kind: str) -> None:
    image = Image.merge("LA", [Image.fromarray(GRAY8), Image.fromarray(GRAY8[::-1].copy())])
    assert_same(read(tmp_path, saved(image, kind)), GRAY8)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_palette_becomes_rgb(tmp_path: Path, kind: str) -> None:
    colours = samples(256, 3, seed=1)
    image = Image.fromarray(GRAY8, "L")
    image.putpalette(colours.tobytes())
    assert image.mode == "P"
    assert_same(read(tmp_path, saved(image, kind)), colours[GRAY8])
    if kind == "PNG":
        assert_same(read(tmp_path, saved(image, kind, transparency=7)), colours[GRAY8])


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_black_and_white_becomes_gray(tmp_path: Path, kind: str) -> None:
    bits = GRAY8 > 127
    assert_same(read(tmp_path, saved(Image.fromarray(bits), kind)), np.where(bits, 255, 0).astype(np.uint8))
    assert_same(read_image(tmp_path / "picture.dat", raw=True), bits.astype(np.uint8))


@pytest.mark.parametrize("bits", [2, 4])
def test_gray_of_few_bits_is_scaled_to_eight(tmp_path: Path, bits: int) -> None:
    levels = np.arange(2**bits, dtype=np.uint8)[None].repeat(3, 0)
    packed = np.packbits(np.unpackbits(levels[..., None], axis=2)[..., 8 - bits :].reshape(3, -1), axis=1)
    data = bytearray(png(packed, 0, bits=8))
    data[16:25] = struct.pack(">IIB", 2**bits, 3, bits)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    assert_same(read(tmp_path, bytes(data)), levels * (255 // (2**bits - 1)))
    assert_same(read_image(tmp_path / "picture.dat", raw=True), levels)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "YCbCr"])
def test_jpeg_is_what_pillow_makes_of_it(tmp_path: Path, mode: str) -> None:
    smooth = np.asarray(Image.fromarray(RGB8).resize((64, 48), Image.Resampling.BICUBIC))
    data = saved(Image.fromarray(smooth).convert(mode), "JPEG", quality=95, subsampling=0)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image if mode == "L" else image.convert("RGB"))
    array = read(tmp_path, data)
    assert_same(array, expected)
    if mode in ("RGB", "CMYK"):
        assert np.abs(array.astype(int) - smooth).mean() < 4


def test_jpeg_with_further_pictures_is_its_first(tmp_path: Path) -> None:
    first, second = (Image.fromarray(np.full((16, 24, 3), level, np.uint8)) for level in (200, 20))
    data = saved(first, "MPO", save_all=True, append_images=[second])
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 2
    assert np.abs(read(tmp_path, data).astype(int) - 200).max() < 3


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_gray_tiff_either_way_round(tmp_path: Path, photometric: str, compression: str | None) -> None:
    for array, white in ((GRAY8, 255), (GRAY16, 65535)):
        data = tiff_bytes(array, photometric=photometric, compression=compression)
        assert_same(read(tmp_path, data), array if photometric == "minisblack" else white - array)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
def test_compressed_tiff_of_eight_bits(tmp_path: Path, compression: str) -> None:
    array = np.asarray(Image.fromarray(RGB8).resize((48, 32), Image.Resampling.BICUBIC))
    result = read(tmp_path, saved(Image.fromarray(array), "TIFF", compression=compression))
    if compression == "jpeg":
        assert np.abs(result.astype(int) - array).mean() < 20
    else:
        assert_same(result, array)


def test_cmyk_tiff_becomes_rgb(tmp_path: Path) -> None:
    image = Image.fromarray(RGB8).convert("CMYK")
    assert_same(read(tmp_path, saved(image, "TIFF")), np.asarray(image.convert("RGB")))


# ---------------------------------------------------------------- reading: sixteen bits


@pytest.mark.parametrize("layout", ["plain", "filtered", "interlaced"])
@pytest.mark.parametrize(
    ("array", "color_type", "expected"),
    [(GRAY16, 0, GRAY16), (RGB16, 2, RGB16), (LA16, 4, LA16[..., 0]), (RGBA16, 6, RGBA16[..., :3])],
    ids=["gray", "rgb", "gray-alpha", "rgba"],
)
def test_png_keeps_sixteen_bits(
    tmp_path: Path, array: np.ndarray, color_type: int, expected: np.ndarray, layout: str
) -> None:
    assert_same(read(tmp_path, png(array, color_type, layout=layout)), expected)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"compression": "zlib", "predictor": True},
                                     {"rowsperstrip": 4}, {"tile": (16, 16)}])  # fmt: skip
def test_tiff_keeps_sixteen_bits(tmp_path: Path, byteorder: str, bigtiff: bool, options: dict) -> None:
    options = {**options, "byteorder": byteorder, "bigtiff": bigtiff}
    assert_same(read(tmp_path, tiff_bytes(GRAY16, photometric="minisblack", **options)), GRAY16)
    assert_same(read(tmp_path, tiff_bytes(RGB16, photometric="rgb", **options)), RGB16)
    planes = np.moveaxis(RGB16, 2, 0).copy()
    assert_same(read(tmp_path, tiff_bytes(planes, photometric="rgb", planarconfig="separate", **options)), RGB16)
    rgba = tiff_bytes(RGBA16, photometric="rgb", extrasamples=["unassalpha"], **options)
    assert_same(read(tmp_path, rgba), RGBA16[..., :3])
    gray_alpha = tiff_bytes(
        LA16, photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"], **options
    )
    assert_same(read(tmp_path, gray_alpha), LA16[..., 0])


@pytest.mark.parametrize("orientation", [1, 2, 6])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_lzw_tiff_keeps_sixteen_bits(tmp_path: Path, byteorder: str, orientation: int) -> None:
    file, tag = tmp_path / "lzw.tif", [(274, "H", 1, orientation, True)]
    for array, options in [
        (GRAY16, {"photometric": "minisblack"}),
        (RGB16, {"photometric": "rgb"}),
        (RGBA16, {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    ]:
        stored = np.ascontiguousarray(STORED[orientation](array))
        lzw_tiff(file, stored, byteorder, extratags=tag, **options)
        assert_same(read_image(file), array[..., :3] if array.ndim == 3 else array)
    assert_same(read_image(lzw_tiff(file, GRAY16, "<", photometric="miniswhite")), 65535 - GRAY16)


@pytest.mark.parametrize("compression", ["zstd", "lzma", "lzw", "jpeg2000", "png", "webp"])
@pytest.mark.parametrize("array", [GRAY16, RGB16, (GRAY16 >> 8).astype(np.uint8), (RGB16 >> 8).astype(np.uint8)])
def test_compressions_that_pillow_does_not_know(tmp_path: Path, array: np.ndarray, compression: str) -> None:
    if compression == "webp" and (array.ndim == 2 or array.dtype != np.uint8):
        pytest.skip("WebP holds RGB of 8 bits alone")
    file = tmp_path / "picture.tif"
    photometric = "rgb" if array.ndim == 3 else "minisblack"
    lossless = {"lossless": True} if compression == "webp" else None
    tifffile.imwrite(file, array, compression=compression, compressionargs=lossless, photometric=photometric)
    assert_same(read_image(file), array)


def test_what_nothing_here_can_decompress_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "picture.tif"
    tifffile.imwrite(file, GRAY16, compression="zstd")
    data = file.read_bytes()
    with tifffile.TiffFile(file) as tiff:
        place = tiff.pages.first.tags["Compression"].valueoffset
    file.write_bytes(data[:place] + (33333).to_bytes(2, "little") + data[place + 2 :])
    with pytest.raises(ValueError, match=r"cannot read .*picture\.tif"):
        read_image(file)


def test_float_tiff(tmp_path: Path) -> None:
    array = np.random.default_rng(0).random((HEIGHT, WIDTH), dtype=np.float32)
    array[0, :2] = 0, 1
    assert_same(read(tmp_path, tiff_bytes(array, byteorder=">")), array)
    for bad in (-0.01, 1.01, np.nan, np.inf):
        array[3, 3] = bad
        with pytest.raises(ValueError, match=re.escape("it has float samples that are not all in [0, 1]")):
            read(tmp_path, tiff_bytes(array))


# ---------------------------------------------------------------- reading: orientation


@pytest.mark.parametrize("orientation", STORED)
def test_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    for array, color_type, bits in ((GRAY8, 0, 8), (RGB8, 2, 8), (GRAY16, 0, 16), (RGB16, 2, 16)):
        stored = np.ascontiguousarray(STORED[orientation](array))
        assert_same(read(tmp_path, png(stored, color_type, bits, extra=exif_chunk(orientation))), array)
        tag = [(274, "H", 1, orientation, True)]
        photometric = "rgb" if array.ndim == 3 else "minisblack"
        assert_same(read(tmp_path, tiff_bytes(stored, photometric=photometric, extratags=tag)), array)
    exif = Image.Exif()
    exif[274] = orientation
    steps = np.add.outer(np.arange(32) * 4, np.arange(48) * 2).astype(np.uint8)
    jpeg = saved(Image.fromarray(np.ascontiguousarray(STORED[orientation](steps))), "JPEG", exif=exif, quality=95)
    result = read(tmp_path, jpeg)
    assert result.shape == steps.shape
    assert np.abs(result.astype(int) - steps).max() < 6


def test_an_orientation_that_does_not_exist_is_ignored(tmp_path: Path) -> None:
    assert_same(read(tmp_path, png(GRAY8, 0, 8, extra=exif_chunk(9))), GRAY8)


# ---------------------------------------------------------------- refusals


def refusal(folder: Path, data: bytes, reason: str) -> None:
    file = folder / "refused.png"
    file.write_bytes(data)
    with pytest.raises(ValueError, match=re.escape(f"cannot read {file}: ") + ".*" + re.escape(reason)):
        read_image(file)


def test_no_such_file_and_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=re.escape(f"there is no picture {tmp_path / 'absent.png'}")):
        read_image(tmp_path / "absent.png")
    with pytest.raises(ValueError, match=re.escape(f"cannot read {tmp_path}: it is a folder")):
        read_image(str(tmp_path))
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ValueError, match="it is no regular file"):
        read_image(tmp_path / "pipe.png")


def test_what_is_no_picture(tmp_path: Path) -> None:
    refusal(tmp_path, b"", "the file is empty")
    refusal(tmp_path, b"hello, world\n" * 20, "it is not a PNG, TIFF, JPEG, BMP, PGM or .npy picture")
    refusal(tmp_path, saved(Image.fromarray(GRAY8), "GIF"), "it is not a PNG, TIFF, JPEG, BMP, PGM or .npy picture")
    refusal(tmp_path, b"\x89PNG\r\n\x1a\n" + b"junk" * 20, "")
    refusal(tmp_path, b"\xff\xd8\xff" + b"junk" * 20, "")
    refusal(tmp_path, b"BM" + b"junk" * 20, "")
    refusal(tmp_path, b"II*\0" + b"junk" * 20, "")


def test_other_samples(tmp_path: Path) -> None:
    for dtype, name in [("i8", "INT samples of 64"), ("u8", "UINT samples of 64")]:
        refusal(tmp_path, tiff_bytes(np.zeros((4, 4), dtype)), f"it has {name} bits, expected UINT of 1 to 32 bits")
    wide = np.array([[-5, 70000]], "i4")
    refusal(tmp_path, tiff_bytes(wide), "it has int32 samples from -5 to 70000, expected 0 to 65535")
    refusal(tmp_path, tiff_bytes(np.array([[20.5, 31.0]])), "it has float samples that are not all in")
    many = samples(HEIGHT, WIDTH, 5, dtype=np.uint16)
    refusal(tmp_path, tiff_bytes(many, photometric="minisblack", planarconfig="contig"), "it has 5 samples a pixel")
    cmyk = tiff_bytes(RGBA16, photometric="separated")
    refusal(tmp_path, cmyk, "it has SEPARATED samples of 16 bits, expected gray or RGB at this depth")
    premultiplied = tiff_bytes(RGBA16, photometric="rgb", extrasamples=["assocalpha"])
    refusal(tmp_path, premultiplied, "it has premultiplied alpha at 16 bits, which is not supported")


def test_damaged_tags(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = tiff_bytes(GRAY16, extratags=[(274, "H", 1, 1, True), (65000, "H", 1, 7, True)])
    for tag, damage in [(257, True), (277, True), (274, True), (65000, False)]:
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            offset = tiff.pages.first.tags[tag].offset
        broken = data[: offset + 2] + b"\xee\xee" + data[offset + 4 :]  # a type that does not exist
        if damage:
            refusal(tmp_path, broken, f"its tags are damaged: {tag}")
        else:
            assert_same(read(tmp_path, broken), GRAY16)
    assert caplog.records == []


def test_several_pictures(tmp_path: Path) -> None:
    first, second = Image.fromarray(GRAY8), Image.fromarray(GRAY8[::-1].copy())
    animation = saved(first, "PNG", save_all=True, append_images=[second])
    refusal(tmp_path, animation, "it is an animation of 2 frames, expected one picture")
    pages = saved(first, "TIFF", save_all=True, append_images=[second])
    refusal(tmp_path, pages, "it holds several pictures (2 pages), expected one")
    refusal(tmp_path, tiff_bytes(samples(3, 8, 8), photometric="minisblack"), "it holds several pictures")
    refusal(tmp_path, tiff_bytes(samples(3, 8, 8), imagej=True, metadata={}), "it holds several pictures")


def test_a_smaller_copy_beside_the_picture_is_no_second_one(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "overview.tif") as tiff:
        tiff.write(GRAY16, metadata=None)
        tiff.write(GRAY16[::2, ::2], subfiletype=1, metadata=None)
    assert_same(read_image(tmp_path / "overview.tif"), GRAY16)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "JPEG"])
def test_more_pixels_than_the_limit(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(Image.fromarray(GRAY8), kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", (HEIGHT * WIDTH + 1) // 2)
    assert read(tmp_path, data).shape == GRAY8.shape
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", (HEIGHT * WIDTH - 1) // 2)
    refusal(tmp_path, data, f"its size 13x17 (height x width) exceeds the limit of {HEIGHT * WIDTH - 1} pixels")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert read(tmp_path, data).shape == GRAY8.shape


def test_bombs_are_refused_by_their_header(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    bomb = bytearray(png(GRAY8, 0, 8))
    bomb[16:24] = struct.pack(">II", 60_000, 60_000)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bomb[12:29]))
    refusal(tmp_path, bytes(bomb), "its size 60000x60000 (height x width) exceeds the limit")
    tiff = tiff_bytes(GRAY16, compression="zlib", extratags=[])
    width, height = struct.pack("<HHII", 256, 4, 1, WIDTH), struct.pack("<HHII", 257, 4, 1, HEIGHT)
    assert tiff.count(width) == tiff.count(height) == 1
    tiff = tiff.replace(width, width[:8] + struct.pack("<I", 60_000))
    tiff = tiff.replace(height, height[:8] + struct.pack("<I", 60_000))
    refusal(tmp_path, tiff, "its size 60000x60000 (height x width) exceeds the limit")
    assert len(recwarn) == 0


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # tags behind the picture
@pytest.mark.parametrize("kind", TRUNCATABLE)
@pytest.mark.parametrize("lenient", [False, True])
def test_a_truncated_file_is_refused_wherever_it_ends(
    tmp_path: Path, kind: str, lenient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    data = TRUNCATABLE[kind]
    whole = read(tmp_path, data)
    file = tmp_path / "truncated"
    refused = 0
    for end in sorted({*range(0, len(data), max(1, len(data) // 60)), *range(len(data) - 16, len(data))}):
        file.write_bytes(data[:end])
        try:
            array = read_image(file)
        except ValueError as error:
            assert str(error).startswith(f"cannot read {file}: ")  # noqa: PT017
            refused += 1
        else:  # only what follows the picture is missing
            assert_same(array, whole)
            assert end > len(data) - 16
    assert refused >= 60
    assert lenient == ImageFile.LOAD_TRUNCATED_IMAGES


def test_a_damaged_checksum_is_refused(tmp_path: Path) -> None:
    data = bytearray(png(RGB16, 2))
    data[80] ^= 0x10
    refusal(tmp_path, bytes(data), "")


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_raw_samples_are_palette_indices_and_all_four_channels(tmp_path: Path, kind: str) -> None:
    indices = Image.fromarray(GRAY8 % 9, mode="P")
    indices.putpalette(np.arange(255, 228, -1, dtype=np.uint8).tobytes())
    for name, image, expected in (("p", indices, GRAY8 % 9), ("a", Image.fromarray(RGBA8), RGBA8)):
        image.save(tmp_path / name, kind)
        assert_same(read_image(tmp_path / name, raw=True), expected)
        assert read_image(tmp_path / name).shape == (*expected.shape[:2], 3)
    Image.fromarray(GRAY8).save(tmp_path / "g", kind)
    assert_same(read_image(tmp_path / "g", raw=True), GRAY8)
