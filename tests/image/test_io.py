from __future__ import annotations

import io
import os
import re
import stat
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from fusionblocks.image import READABLE_SUFFIXES, WRITABLE_SUFFIXES, image_to_array, read_image, write_image
from tests.helpers.pictures import GRAY8, GRAY16, RGB8, RGB16, RGBA8, TRUNCATABLE, assert_same, samples


def test_suffixes() -> None:
    assert {".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp"} == WRITABLE_SUFFIXES
    assert WRITABLE_SUFFIXES | {".npy", ".pgm"} == READABLE_SUFFIXES


# ---------------------------------------------------------------- PIL images


def test_pil_images() -> None:
    assert_same(image_to_array(Image.fromarray(GRAY8)), GRAY8)
    assert_same(image_to_array(Image.fromarray(RGB8)), RGB8)
    assert_same(image_to_array(Image.fromarray(RGBA8)), RGBA8[..., :3])
    assert_same(image_to_array(Image.fromarray(GRAY16)), GRAY16)
    assert_same(image_to_array(Image.fromarray(GRAY16.astype(">u2"))), GRAY16)
    assert_same(image_to_array(Image.fromarray(GRAY8 > 99)), np.where(GRAY8 > 99, 255, 0).astype(np.uint8))
    real = GRAY8.astype(np.float32) / 255
    assert_same(image_to_array(Image.fromarray(real)), real)
    cmyk = Image.fromarray(RGB8).convert("CMYK")
    assert_same(image_to_array(cmyk), np.asarray(cmyk.convert("RGB")))


def test_pil_images_refused() -> None:
    with pytest.raises(TypeError, match="infrared must be a PIL image, got ndarray"):
        image_to_array(GRAY8, "infrared")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="infrared cannot be read: it has integer samples of 32 bits"):
        image_to_array(Image.fromarray(GRAY8.astype(np.int32)), "infrared")
    with pytest.raises(ValueError, match="image cannot be read: its mode LAB is not supported"):
        image_to_array(Image.new("LAB", (4, 4)))
    with pytest.raises(ValueError, match="it has no pixels"):
        image_to_array(Image.new("RGB", (0, 4)))
    with Image.open(io.BytesIO(TRUNCATABLE["png"][:-200])) as image, pytest.raises(ValueError, match="truncated"):
        image_to_array(image)


# ---------------------------------------------------------------- writing


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".tif", ".tiff", ".bmp"])
def test_lossless_round_trip(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"picture{suffix}"
    arrays = [GRAY8, RGB8, GRAY8[:1, :1], RGB8[:3, :3], samples(5, 3), samples(3, 3, 3), RGB8[::-1, ::2], GRAY8.T]
    if suffix.lower() != ".bmp":
        arrays += [GRAY16, GRAY16[::2], GRAY16.astype(">u2")]
    if suffix.startswith(".tif"):
        arrays += [RGB16, samples(3, 3, 3, dtype=np.uint16)]
    for array in arrays:
        before = array.copy()
        write_image(file, array)
        assert_same(read_image(file), array.astype(array.dtype.newbyteorder("=")))
        assert np.array_equal(array, before)
        with Image.open(file) as image:  # a reader of its own agrees
            if array.dtype.itemsize == 1 or array.ndim == 2:
                assert np.array_equal(np.asarray(image), array)
    assert [entry.name for entry in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg"])
def test_jpeg_keeps_colour_edges(tmp_path: Path, suffix: str) -> None:
    array = np.zeros((32, 32, 3), np.uint8)
    array[:, ::2] = 220, 40, 40
    array[:, 1::2] = 40, 40, 220
    write_image(tmp_path / f"fused{suffix}", array)
    with Image.open(tmp_path / f"fused{suffix}") as image:
        assert image.format == "JPEG"
        assert image.mode == "RGB"
    assert np.abs(read_image(tmp_path / f"fused{suffix}").astype(int) - array).max() < 16


@pytest.mark.parametrize(
    ("name", "array", "error", "message"),
    [
        ("a.gif", GRAY8, ValueError, "path must end in one of .bmp, .jpeg, .jpg, .png, .tif, .tiff, got"),
        ("a", GRAY8, ValueError, "path must end in one of"),
        ("a.png", RGB16, ValueError, "a 16-bit RGB picture cannot be written as .png; write .tif"),
        ("a.jpg", GRAY16, ValueError, "a 16-bit gray picture cannot be written as .jpg; write .tif"),
        ("a.bmp", GRAY16, ValueError, "a 16-bit gray picture cannot be written as .bmp"),
        (
            "a.png",
            RGBA8,
            ValueError,
            "array must have shape (H, W) or (H, W, 3) with at least one pixel, got (13, 17, 4)",
        ),
        ("a.png", np.zeros((0, 4), np.uint8), ValueError, "with at least one pixel, got (0, 4)"),
        ("a.png", np.zeros(4, np.uint8), ValueError, "got (4,)"),
        ("a.png", np.zeros((4, 4)), TypeError, "array must be of dtype uint8 or uint16, got float64"),
        ("a.png", np.zeros((4, 4), np.int16), TypeError, "array must be of dtype uint8 or uint16, got int16"),
        ("a.png", [[0, 1]], TypeError, "array must be a NumPy array, got list"),
        ("absent/a.png", GRAY8, FileNotFoundError, "there is no folder"),
    ],
)
def test_refused_writing_leaves_nothing(
    tmp_path: Path, name: str, array: np.ndarray, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        write_image(tmp_path / name, array)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(ValueError, match="it is a folder"):
        write_image(tmp_path / "a.png", GRAY8)


class _DiskFull(OSError):
    pass


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".bmp"])
@pytest.mark.parametrize("moment", ["encoding", "syncing", "replacing"])
@pytest.mark.parametrize("exception", [_DiskFull, KeyboardInterrupt])
def test_a_failure_leaves_the_old_picture_and_nothing_else(
    tmp_path: Path, suffix: str, moment: str, exception: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / f"fused{suffix}"
    write_image(file, GRAY8)
    old = file.read_bytes()
    seen = []

    def fail(*_: object, **__: object) -> None:
        seen.extend(entry for entry in tmp_path.iterdir() if entry != file)
        raise exception("no space left")

    if moment == "encoding":
        encode = Image.Image.save

        def half(self: Image.Image, target: object, *arguments: object, **options: object) -> None:
            encode(self, target, *arguments, **options)  # type: ignore[arg-type]
            fail()

        monkeypatch.setattr(Image.Image, "save", half)
        monkeypatch.setattr(tifffile, "imwrite", fail)
    else:
        monkeypatch.setattr(os, {"syncing": "fsync", "replacing": "replace"}[moment], fail)
    for target in (file, tmp_path / f"new{suffix}"):
        with pytest.raises(exception):
            write_image(target, 255 - GRAY8)
    assert len(seen) == 2  # there was a temporary file, in the same folder, each time
    assert file.read_bytes() == old
    assert list(tmp_path.iterdir()) == [file]


def test_replaces_links_targets_and_follows_the_umask(tmp_path: Path) -> None:
    real, link = tmp_path / "real.png", tmp_path / "link.png"
    write_image(real, GRAY8)
    link.symlink_to(real)
    write_image(link, RGB8)
    assert link.is_symlink()
    assert_same(read_image(real), RGB8)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(real.stat().st_mode) == 0o666 & ~umask
    write_image(tmp_path / f"{'x' * 250}.png", GRAY8)  # the longest name that fits


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_in_memory_is_turned_as_its_file_is(tmp_path: Path, orientation: int) -> None:
    array = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for suffix in ("png", "jpg", "tif"):
        file = tmp_path / f"picture.{suffix}"
        Image.fromarray(array).save(file, exif=exif)
        with Image.open(file) as image:
            assert np.array_equal(image_to_array(image), read_image(file))


def test_a_large_picture_is_made_without_a_warning(tmp_path: Path, monkeypatch, recwarn) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    write_image(tmp_path / "large.png", np.zeros((6, 8), np.uint8))
    assert read_image(tmp_path / "large.png").shape == (6, 8)
    assert not [w for w in recwarn if w.category is Image.DecompressionBombWarning]
