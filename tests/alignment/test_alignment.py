"""An alignment as a thing: it maps, warps, covers, and survives its file."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import fusionblocks as fb
from fusionblocks.image import Lens
from fusionblocks.image.planar import mean_displacement, scaling, similarity

MATRIX = np.array([[1.5, 0.1, 12.0], [-0.05, 1.4, 7.0], [1e-4, -2e-4, 1.0]])


def rig(**options) -> fb.Alignment:
    return fb.Alignment(MATRIX, (60, 80), (120, 160), **{"error": 0.5, **options})


def picture(height: int = 60, width: int = 80) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return 0.5 + 0.2 * np.sin(x / 5) + 0.2 * np.cos(y / 4)


def test_it_maps_there_and_back() -> None:
    points = np.array([[0.0, 0.0], [79, 59], [10.5, 33.2]])
    own = rig()
    expected = np.array([MATRIX @ [x, y, 1] for x, y in points])
    np.testing.assert_allclose(own.map(points), expected[:, :2] / expected[:, 2:])
    np.testing.assert_allclose(own.unmap(own.map(points)), points, atol=1e-9)
    bent = rig(infrared_lens=lens(80, 60), visible_lens=lens(160, 120))
    np.testing.assert_allclose(bent.unmap(bent.map(points)), points, atol=1e-6)
    assert np.abs(bent.map(points) - own.map(points)).max() > 1


def lens(width: int, height: int) -> Lens:
    return Lens(np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1]]), (-0.15, 0.02, 0.001, -0.001, 0))


@pytest.mark.parametrize("bent", [False, True])
def test_a_warped_picture_is_where_the_map_says(bent: bool) -> None:
    own = rig(infrared_lens=lens(80, 60), visible_lens=lens(160, 120)) if bent else rig()
    source = picture()
    warped = own.warp(source)
    assert warped.shape == (120, 160)
    seen = own.coverage
    assert seen.dtype == bool
    assert 0.2 < seen.mean() < 0.9
    assert (warped[~seen] == 0).all()
    y, x = np.nonzero(seen)
    there = own.unmap(np.stack([x, y], axis=1))
    exact = 0.5 + 0.2 * np.sin(there[:, 0] / 5) + 0.2 * np.cos(there[:, 1] / 4)
    np.testing.assert_allclose(warped[seen], exact, atol=0.01)  # what bilinear sampling costs


def test_kinds_and_dtypes_stay() -> None:
    own, counts = rig(), np.rint(20000 + 20000 * picture()).astype(np.uint16)
    warped = own.warp(counts)
    assert warped.dtype == np.uint16
    assert np.abs(warped[own.coverage] - own.warp(counts.astype(np.float64))[own.coverage]).max() <= 0.5
    assert own.warp(np.stack([counts] * 3, axis=2)).shape == (120, 160, 3)
    assert own.warp(counts > 30000).dtype == bool
    tensor = torch.from_numpy(picture()).float()
    assert own.warp(tensor[None]).shape == (1, 120, 160)
    assert own.warp(tensor[None, None].expand(2, 3, -1, -1)).shape == (2, 3, 120, 160)
    levels = (255 * tensor[None]).to(torch.uint8)
    assert own.warp(levels).dtype == torch.uint8


def test_scaled_copies_are_warped_alike() -> None:
    own = rig()
    large = own.warp(picture(), size=(240, 320))
    assert large.shape == (240, 320)
    halved = large.reshape(120, 2, 160, 2).mean((1, 3))
    inner = own.soft_coverage() == 1
    np.testing.assert_allclose(halved[inner], own.warp(picture())[inner], atol=0.01)
    double = np.kron(picture(), np.ones((2, 2)))
    np.testing.assert_allclose(own.warp(double)[inner], own.warp(picture())[inner], atol=0.08)
    with pytest.raises(ValueError, match=r"size must have the aspect .* 120x160, got 100x160"):
        own.warp(picture(), size=(100, 160))
    with pytest.raises(ValueError, match=r"infrared must have the aspect .* 60x80, got 80x80"):
        own.warp(np.zeros((80, 80)))


def test_what_has_no_data_does_not_bleed() -> None:
    source = picture()
    source[20:30, 30:40] = np.nan
    warped = rig().warp(source)
    assert np.isfinite(warped).all()
    known = rig().warp(np.isfinite(source).astype(float)) > 0.999
    np.testing.assert_allclose(warped[known], rig().warp(picture())[known], atol=1e-9)


def test_coverage_falls_at_the_edge_of_the_view() -> None:
    own = fb.Alignment(similarity(1.0, 0, (20, 10), (0, 0)), (60, 80), (120, 160))
    soft = own.soft_coverage(border=0.1)
    assert soft.dtype == np.float32
    assert (soft[own.coverage] >= 0).all()
    assert (soft[~own.coverage] == 0).all()
    assert soft[40, 60] == 1
    across = soft[40, 20:40]
    assert (np.diff(across) >= 0).all()
    assert across[0] == 0
    assert own.coverage.sum() == 60 * 80


def test_beyond_the_horizon_nothing_is_seen() -> None:
    tilted = fb.Alignment(np.array([[1, 0, 0], [0, 1, 0], [0.0, 0.02, 1]]), (100, 100), (100, 100))
    warped = tilted.warp(np.ones((100, 100)))
    np.testing.assert_allclose(warped * (1 - warped), 0, atol=1e-9)
    assert np.array_equal(warped > 0, tilted.coverage)
    assert not tilted.coverage[60:].any()


def test_files(tmp_path) -> None:
    own = rig(reliable=False, model="affine", infrared_lens=lens(80, 60))
    own.save(tmp_path / "rig.json")
    again = fb.Alignment.load(tmp_path / "rig.json")
    assert np.array_equal(again.matrix, own.matrix)
    assert (again.infrared_size, again.visible_size, again.error, again.reliable, again.model) == (
        (60, 80), (120, 160), 0.5, False, "affine",
    )  # fmt: skip
    assert np.array_equal(again.infrared_lens.distortion, own.infrared_lens.distortion)
    assert again.visible_lens is None
    with pytest.raises(FileNotFoundError, match="there is no file .*absent"):
        fb.Alignment.load(tmp_path / "absent.json")
    content = json.loads((tmp_path / "rig.json").read_text())
    for name, change, match in [
        ("other", {"format": "coco"}, "its format is 'coco'"),
        ("short", {"matrix": [[1, 2]]}, "matrix must be"),
        ("lost", {"matrix": None}, "does not hold an alignment"),
        ("sizes", {"visible_size": [0, 5]}, "visible_size must be two positive integers"),
    ]:
        (tmp_path / f"{name}.json").write_text(json.dumps({**content, **change}))
        with pytest.raises(ValueError, match=match):
            fb.Alignment.load(tmp_path / f"{name}.json")
    (tmp_path / "text.json").write_text("no JSON")
    with pytest.raises(ValueError, match=r"text\.json does not hold an alignment"):
        fb.Alignment.load(tmp_path / "text.json")


def test_wrong_fields_are_named() -> None:
    with pytest.raises(ValueError, match="matrix must be .* invertible"):
        fb.Alignment(np.zeros((3, 3)), (6, 8), (6, 8))
    with pytest.raises(ValueError, match="infrared_size must be two positive integers"):
        fb.Alignment(MATRIX, (6.5, 8), (6, 8))
    with pytest.raises(ValueError, match="model must be one of shift, similarity, affine, homography, got 'warp'"):
        rig(model="warp")
    with pytest.raises(TypeError, match="infrared must be an array or a tensor, got str"):
        rig().warp("a.png")


def test_displacement_is_that_of_the_grid() -> None:
    moved = scaling(1.0) + np.array([[0, 0, 3], [0, 0, 4], [0, 0, 0]])
    assert mean_displacement(scaling(1.0), moved, (60, 80), (60, 80)) == pytest.approx(5)
    assert (
        mean_displacement(np.diag([1.0, 1, 1]) + [[0, 0, 500], [0, 0, 0], [0, 0, 0]], moved, (60, 80), (60, 80))
        == np.inf
    )
