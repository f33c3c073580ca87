"""What thermal cameras write, written here as they do and read back."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import fusionblocks as fb
from fusionblocks.image import read_image, thermal_picture

CELSIUS = np.linspace(12.0, 38.0, 48).reshape(6, 8)
PLANCK = {"r1": 16556.0, "b": 1428.0, "f": 1.0, "offset": -207, "r2": 0.0459}


class Mean(torch.nn.Module):
    def forward(self, infrared: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        return (infrared + visible) / 2


def counts_of(celsius: np.ndarray) -> np.ndarray:
    """Return the raw counts of a camera of these constants for a black body."""
    kelvin = celsius + 273.15
    return PLANCK["r1"] / (PLANCK["r2"] * (np.exp(PLANCK["b"] / kelvin) - PLANCK["f"])) - PLANCK["offset"]


def flir(
    raw: np.ndarray, *, png: str | None = "<", emissivity: float = 1.0, reflected: float = 293.15, cut: int = 0
) -> bytes:
    """Return a JPEG with FLIR's records: the raw picture as a PNG of a byte order, or as plain samples."""
    height, width = raw.shape
    head = struct.pack("<HHH", 2, width, height).ljust(32, b"\0")
    if png is None:
        body = raw.astype("<u2").tobytes()
    else:
        body = imagecodecs.png_encode(raw.byteswap() if png == "<" else raw)
    first = head + body
    info = bytearray(0x320)
    struct.pack_into("<H", info, 0, 2)
    struct.pack_into("<f", info, 0x20, emissivity)
    struct.pack_into("<f", info, 0x28, 293.15)
    struct.pack_into("<fff", info, 0x58, PLANCK["r1"], PLANCK["b"], PLANCK["f"])
    struct.pack_into("<if", info, 0x308, PLANCK["offset"], PLANCK["r2"])
    start = 0x40
    places = start + 64, start + 64 + len(first)
    data = bytearray(start + 64)
    data[:4] = b"FFF\0"
    struct.pack_into(">III", data, 0x14, 101, start, 2)
    for i, (kind, offset, length) in enumerate([(1, places[0], len(first)), (0x20, places[1], len(info))]):
        struct.pack_into(">HHIIII", data, start + 32 * i, kind, 0, 0, 0, offset, length)
    data = bytes(data) + first + bytes(info)
    data = data[: len(data) - cut]
    halves = data[: len(data) // 2], data[len(data) // 2 :]
    stream = io.BytesIO()
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(stream, "JPEG")
    segments = b"".join(
        b"\xff\xe1" + struct.pack(">H", len(half) + 10) + b"FLIR\0\x01" + bytes([i, 1]) + half
        for i, half in enumerate(halves)
    )
    jpeg = stream.getvalue()
    return jpeg[:2] + segments + jpeg[2:]


@pytest.mark.parametrize("png", ["<", ">", None])
def test_flir(tmp_path: Path, png: str | None) -> None:
    file = tmp_path / "FLIR0001.jpg"
    file.write_bytes(flir(np.rint(counts_of(CELSIUS)).astype(np.uint16), png=png))
    picture = fb.read_thermal(file)
    assert picture.unit == "celsius"
    np.testing.assert_allclose(picture.values, CELSIUS, atol=0.02)
    assert not picture.no_data.any()
    np.testing.assert_allclose(picture.celsius(), picture.values)


def test_flir_emissivity(tmp_path: Path) -> None:
    """What a gray body sends is its own light and, for the rest, that of its surroundings."""
    seen = 0.9 * counts_of(CELSIUS) + 0.1 * counts_of(np.array(20.0))
    file = tmp_path / "a.jpg"
    file.write_bytes(flir(np.rint(seen).astype(np.uint16), emissivity=0.9))
    np.testing.assert_allclose(fb.read_thermal(file).values, CELSIUS, atol=0.03)


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(flir(np.rint(counts_of(CELSIUS)).astype(np.uint16), png=None, cut=0x330))
    with pytest.raises(ValueError, match=r"cannot read .*a\.jpg: its radiometric data are damaged"):
        fb.read_thermal(file)
    stream = io.BytesIO()
    Image.fromarray(np.zeros((6, 8), np.uint8)).save(stream, "JPEG")
    jpeg = stream.getvalue()
    file.write_bytes(jpeg[:2] + b"\xff\xe3\x00\x08DJI-XX"[:10] + jpeg[2:])
    with pytest.raises(ValueError, match=r"DJI's Thermal SDK.*dji_irp"):
        fb.read_thermal(file)
    file.write_bytes(jpeg)
    assert fb.read_thermal(file).unit == "levels"
    Image.fromarray(np.dstack([np.zeros((6, 8), np.uint8), *[np.full((6, 8), 200, np.uint8)] * 2])).save(
        tmp_path / "c.png"
    )
    with pytest.raises(ValueError, match="holds a colour picture"):
        fb.read_thermal(tmp_path / "c.png")
    with pytest.raises(FileNotFoundError):
        fb.read_thermal(tmp_path / "absent.tiff")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("dtype", "factor", "offset", "unit"),
    [
        ("f2", 1, 0, "celsius"), ("f4", 1, 0, "celsius"), ("f8", 1, 273.15, "kelvin"), ("f4", 0.02, 0, "relative"),
        ("u2", 100, 27315, "centikelvin"), ("u2", 100, 2000, "counts"), ("i2", 100, 2000, "counts"),
        ("u4", 100, 27315, "centikelvin"),
    ],
)  # fmt: skip
def test_units_and_dtypes(tmp_path: Path, dtype: str, factor: float, offset: float, unit: str, order: str) -> None:
    values = CELSIUS * factor + offset
    values = (np.rint(values) if dtype[0] in "iu" else values).astype(f"{order}{dtype}")
    tifffile.imwrite(tmp_path / "a.tiff", values, byteorder=order)
    np.save(tmp_path / "a.npy", values)
    for name in ("a.tiff", "a.npy"):
        picture = fb.read_thermal(tmp_path / name)
        assert picture.unit == unit, name
        np.testing.assert_allclose(picture.values, values.astype(np.float64), rtol=1e-6)
        if unit in ("celsius", "kelvin", "centikelvin"):
            np.testing.assert_allclose(picture.celsius(), CELSIUS, atol=0.02)
        else:
            with pytest.raises(ValueError, match=f"a picture in {unit} has no temperatures"):
                picture.celsius()


def test_where_there_are_no_data(tmp_path: Path) -> None:
    values = CELSIUS.copy()
    values[2, 3] = np.nan
    np.save(tmp_path / "a.npy", values)
    picture = fb.read_thermal(tmp_path / "a.npy")
    assert np.argwhere(picture.no_data).tolist() == [[2, 3]]
    counts = np.random.default_rng(0).integers(29000, 29500, (20, 30)).astype(np.uint16)
    counts[4, 5], counts[6, 7] = 0, 65535
    assert np.argwhere(thermal_picture(counts).no_data).tolist() == [[4, 5], [6, 7]]


@pytest.mark.parametrize("most", [255, 4095, 65535])
def test_pgm(tmp_path: Path, most: int) -> None:
    values = np.linspace(0, most, 48).reshape(6, 8).astype(">u2" if most > 255 else "u1")
    (tmp_path / "a.pgm").write_bytes(b"P5\n# a camera\n8 6\n%d\n" % most + values.tobytes())
    array = read_image(tmp_path / "a.pgm")
    assert array.dtype == (np.uint16 if most > 255 else np.uint8)
    np.testing.assert_array_equal(array, values)
    (tmp_path / "a.pgm").write_bytes(b"P5 8 6 %d\n" % most + values.tobytes()[:-1])
    with pytest.raises(ValueError, match="it is truncated"):
        read_image(tmp_path / "a.pgm")


def test_a_npy_file_is_refused_with_objects_and_wrong_shapes(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"cannot read .*a\.npy"):
        read_image(tmp_path / "a.npy")
    for wrong, match in [(np.zeros(5), "its shape is"), (np.zeros((4, 5), complex), "real numbers")]:
        np.save(tmp_path / "a.npy", wrong)
        with pytest.raises(ValueError, match=match):
            read_image(tmp_path / "a.npy")


def test_fuse_takes_degrees_by_their_own_range(tmp_path: Path) -> None:
    scene = fb.data.synthetic_scene(3, height=48, width=64)
    degrees = 10 + 30 * scene.infrared[0].numpy()
    visible = (scene.visible.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tiff", degrees.astype(np.float64))
    with pytest.raises(ValueError, match="not all in"):
        fb.fuse(tmp_path / "a.tiff", visible)
    auto = fb.fuse(tmp_path / "a.tiff", visible, thermal_range="auto")
    low, high = fb.image.auto_range(degrees)
    same = fb.fuse(degrees, visible, thermal_range=(low, high))
    assert np.abs(auto.astype(int) - same).max() <= 1
    (tmp_path / "a.jpg").write_bytes(flir(np.rint(counts_of(degrees)).astype(np.uint16)))
    # whole counts move a temperature by some hundredths of a degree, by which the default network may choose another
    # detail; the mean of both shows how the file was read
    mean = fb.wrap(Mean(), visible="luma")
    same = fb.fuse(degrees, visible, model=mean, thermal_range=(low, high)).astype(int)
    assert np.abs(fb.fuse(tmp_path / "a.jpg", visible, model=mean) - same).max() <= 3
