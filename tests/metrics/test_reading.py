from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from fusionblocks.image import write_image
from fusionblocks.metrics import read_gray_levels


def test_gray_levels_stay(tmp_path: Path) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(8, 32)
    write_image(tmp_path / "gray.png", levels)
    picture = read_gray_levels(tmp_path / "gray.png")
    assert picture.dtype == torch.uint8
    assert picture.shape == (1, 1, 8, 32)
    assert np.array_equal(picture[0, 0].numpy(), levels)


def test_three_equal_channels_are_their_gray(tmp_path: Path) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(8, 32)
    write_image(tmp_path / "rgb.png", np.repeat(levels[:, :, None], 3, 2))
    assert np.array_equal(read_gray_levels(tmp_path / "rgb.png")[0, 0].numpy(), levels)


def test_colours_become_their_luma_rounded_to_the_nearest_level(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    write_image(tmp_path / "rgb.png", rgb)
    exact = rgb.astype(np.int64) @ np.array([299, 587, 114])  # thousandths of a level
    off = np.abs(1000 * read_gray_levels(tmp_path / "rgb.png")[0, 0].numpy().astype(np.int64) - exact)
    assert off.max() <= 500


def test_float_pictures_stay_float(tmp_path: Path) -> None:
    gray = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    tifffile.imwrite(tmp_path / "gray.tiff", gray)
    assert np.array_equal(read_gray_levels(tmp_path / "gray.tiff")[0, 0].numpy(), gray)


def test_sixteen_bits_are_refused_by_name(tmp_path: Path) -> None:
    write_image(tmp_path / "raw.tiff", np.full((4, 4), 29000, np.uint16))
    with pytest.raises(ValueError, match=r"raw\.tiff has 16 bits.*normalize_percentiles"):
        read_gray_levels(tmp_path / "raw.tiff")
