from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fusionblocks as fb
from fusionblocks.image import doubts, intensities, scene_range, write_image
from fusionblocks.image.palettes import _KNOTS
from tests.helpers.command import run

matplotlib = pytest.importorskip("matplotlib")
SCENE = fb.data.synthetic_scene(3, height=96, width=128)
LEVELS = (SCENE.infrared[0].numpy() * 255).round().astype(np.uint8)
VISIBLE = (SCENE.visible.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)


def coloured(levels: np.ndarray, palette: str) -> np.ndarray:
    return (matplotlib.colormaps[palette](levels)[..., :3] * 255).round().astype(np.uint8)


def as_jpeg(picture: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=90)
    return np.asarray(Image.open(file))


@pytest.mark.parametrize(
    "palette", ["jet", "hot", "inferno", "magma", "plasma", "viridis", "turbo", "afmhot", "rainbow"]
)
@pytest.mark.parametrize("jpeg", [False, True])
def test_false_colours_become_intensities(palette: str, jpeg: bool) -> None:
    picture = coloured(LEVELS, palette)
    found, name = intensities("infrared", as_jpeg(picture) if jpeg else picture)
    assert name == ("spectrum" if palette == "rainbow" else palette)  # matplotlib's goes from violet to red
    assert np.abs(found.astype(int) - LEVELS).mean() < (6 if jpeg else 3)


@pytest.mark.parametrize("palette", [name for name in _KNOTS if name != "hsv"])
def test_each_palette_is_told_from_the_others(palette: str) -> None:
    from fusionblocks.image.palettes import _curve

    picture = _curve(palette).round().astype(np.uint8)[LEVELS]
    found, name = intensities("infrared", picture)
    assert name == palette
    assert np.abs(found.astype(int) - LEVELS).max() <= 3


def test_a_palette_that_cannot_be_inverted_is_refused() -> None:
    with pytest.raises(ValueError, match="infrared is in false colours of the palette hsv, whose coldest and hottest"):
        intensities("infrared", coloured(np.arange(4096).astype(np.uint8).reshape(64, 64), "hsv"))
    green = np.stack([255 - LEVELS, LEVELS, 0 * LEVELS], axis=-1)
    with pytest.raises(ValueError, match="infrared is in false colours of a palette that is not known"):
        intensities("infrared", green)


def test_pictures_of_cameras_are_left_as_they_are() -> None:
    gray = np.repeat(LEVELS[..., None], 3, axis=2)
    marked = gray.copy()
    marked[10:14, 5:60] = (255, 0, 0)  # a crosshair
    for picture in (VISIBLE, gray, marked, LEVELS, np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)):
        found, name = intensities("infrared", picture)
        assert name is None
        assert found is picture


def test_fuse_datasets_and_alignment_read_false_colours(tmp_path: Path) -> None:
    for folder, picture in {"ir": coloured(LEVELS, "inferno"), "vi": VISIBLE}.items():
        (tmp_path / folder).mkdir()
        write_image(tmp_path / folder / "1.png", picture)
    with pytest.warns(UserWarning, match="infrared is in false colours, palette inferno"):
        fused = fb.fuse(coloured(LEVELS, "inferno"), VISIBLE, model="laplacian")
    expected = fb.fuse(LEVELS, VISIBLE, model="laplacian")
    assert np.abs(fused.astype(int) - expected).mean() < 2
    pairs = fb.data.PairedImages(tmp_path / "ir", tmp_path / "vi")
    with pytest.warns(UserWarning, match="ir/1.png is in false colours"):
        assert (pairs[0]["infrared"][0] * 255 - LEVELS).abs().mean() < 1
    code, output = run(
        "fuse", "--infrared", tmp_path / "ir", "--visible", tmp_path / "vi", "--output", tmp_path / "out"
    )
    assert code == 0
    assert "warning: 1: infrared is in false colours, palette inferno" in output
    assert "1 pair by name" in output


# --- what looks wrong -------------------------------------------------------------------------------------------------


def test_a_sound_pair_raises_no_doubt() -> None:
    counts = (29000 + LEVELS.astype(np.uint16) * 8).astype(np.uint16)
    noisy = np.random.default_rng(0).integers(0, 65536, (64, 64), np.uint16)
    for infrared in (LEVELS, counts, noisy, np.repeat(LEVELS[..., None], 3, axis=2)):
        assert doubts(infrared, VISIBLE) == []
    assert doubts(LEVELS, VISIBLE[..., 0]) == []


def test_doubts_give_their_evidence() -> None:
    counts = (29000 + LEVELS.astype(np.uint16) * 8).astype(np.uint16)
    assert doubts(np.full((9, 9), 4, np.uint16), VISIBLE) == ["infrared is empty: every value is 4"]
    (swapped,) = doubts(counts.byteswap(), VISIBLE)
    assert swapped.startswith("infrared seems to have its bytes swapped: neighbours differ by")
    (low,) = doubts((counts & 255).astype(np.uint8), VISIBLE)
    assert "low bytes of 16-bit counts" in low
    (folders,) = doubts(VISIBLE, LEVELS)
    assert folders.startswith("infrared and visible seem to be swapped: ")
    with pytest.warns(UserWarning, match="bytes swapped"):
        fb.fuse(counts.byteswap(), VISIBLE, model="laplacian")


def test_hot_may_be_black(tmp_path: Path) -> None:
    expected = fb.fuse(LEVELS, VISIBLE, model="laplacian")
    assert np.array_equal(fb.fuse(255 - LEVELS, VISIBLE, model="laplacian", black_hot=True), expected)
    write_image(tmp_path / "ir.png", 255 - LEVELS)
    write_image(tmp_path / "vi.png", VISIBLE)
    command = ("fuse", "--infrared", tmp_path / "ir.png", "--visible", tmp_path / "vi.png", "--model", "laplacian")
    assert run(*command, "--output", tmp_path / "out.png", "--black-hot")[0] == 0
    assert np.array_equal(fb.image.read_image(tmp_path / "out.png"), expected)


# --- one range for a sequence -----------------------------------------------------------------------------------------


def test_the_range_of_a_scene_is_that_of_all_pictures(tmp_path: Path) -> None:
    ramp = np.linspace(0, 400, 64 * 80).reshape(64, 80)
    pictures = [(29000 + 40 * i + ramp).astype(np.uint16) for i in range(8)]
    low, high = scene_range(pictures)
    assert abs(low - 29000) < 40
    assert abs(high - 29680) < 40
    for folder in ("ir", "vi"):
        (tmp_path / folder).mkdir()
    for i, picture in enumerate(pictures):
        write_image(tmp_path / f"ir/{i}.tiff", picture)
        write_image(tmp_path / f"vi/{i}.png", np.full((64, 80, 3), 40 + i, np.uint8))
    pairs = fb.data.PairedImages(tmp_path / "ir", tmp_path / "vi", thermal_range="scene")
    assert pairs.reader.thermal_range == (low, high)
    both = ("--infrared", tmp_path / "ir", "--visible", tmp_path / "vi", "--model", "laplacian")
    assert run("fuse", *both, "--output", tmp_path / "out", "--thermal-range", "scene")[0] == 0
    expected = fb.fuse(pictures[2], np.full((64, 80, 3), 42, np.uint8), model="laplacian", thermal_range=(low, high))
    assert np.array_equal(fb.image.read_image(tmp_path / "out/2.png"), expected)
    assert scene_range([LEVELS]) is None
    with pytest.raises(ValueError, match="must have one dtype, got uint16 and uint8"):
        scene_range([pictures[0], LEVELS])
    with pytest.raises(ValueError, match="at least one picture"):
        scene_range([])
    code, output = run("fuse", *both, "--output", tmp_path / "out", "--thermal-range", "wide")
    assert code == 2
    assert "--thermal-range must be two numbers, 'auto' or 'scene', got 'wide'" in output


def test_pixels_without_data_are_filled_from_around() -> None:
    degrees = (20 + LEVELS / 10).astype(np.float32)
    holes = degrees.copy()
    holes[40:46, 50:56] = np.nan
    holes[0, 0] = np.inf
    with pytest.warns(UserWarning, match="infrared has no data in 37 of 12288 pixels: they are filled from around"):
        fused = fb.fuse(holes, VISIBLE, model="laplacian", thermal_range=(20, 46))
    expected = fb.fuse(degrees, VISIBLE, model="laplacian", thermal_range=(20, 46))
    away = np.ones(LEVELS.shape, bool)
    away[20:70, 30:80] = away[:20, :20] = False
    assert np.abs(fused[away].astype(int) - expected[away]).max() <= 1
    with pytest.raises(ValueError, match="infrared must have finite values"):
        fb.fuse(np.full((32, 32), np.nan), VISIBLE[:32, :32], thermal_range=(20, 46))
