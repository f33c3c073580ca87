"""Rigs aligned from their scenes, from points and from boards; the truth is the synthetic rig's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fusionblocks as fb
from fusionblocks.data import synthetic_rig
from fusionblocks.image import planar, tensor_to_array, write_image

SIZES = (120, 160), (240, 320)


def apart(rig: fb.Alignment, matrix: np.ndarray) -> float:
    return planar.mean_displacement(matrix, rig.matrix, rig.infrared_size, rig.visible_size)


@pytest.fixture(scope="module")
def scenes() -> fb.data.SyntheticRig:
    return synthetic_rig(5, 20)


@pytest.fixture(scope="module")
def found(scenes) -> fb.Alignment:
    return fb.align([pair.infrared for pair in scenes.pairs], [pair.visible for pair in scenes.pairs])


def test_a_rig_from_its_scenes(scenes, found) -> None:
    assert apart(found, scenes.matrix) < 1
    assert found.reliable
    assert found.error < 2
    assert (found.infrared_size, found.visible_size) == SIZES
    assert found.model in ("similarity", "affine")


def test_folders_arrays_and_tensors_give_the_same(scenes, found, tmp_path) -> None:
    for name in ("ir", "vis"):
        (tmp_path / name).mkdir()
    for i, pair in enumerate(scenes.pairs):
        write_image(tmp_path / "ir" / f"{i}.tiff", pair.infrared)
        write_image(tmp_path / "vis" / f"{i}.png", pair.visible)
    files = fb.align(tmp_path / "ir", tmp_path / "vis")
    np.testing.assert_allclose(files.matrix, found.matrix, rtol=1e-9, atol=1e-9)
    infrared = torch.from_numpy(np.stack([pair.infrared.astype(np.float64) for pair in scenes.pairs]))[:, None]
    visible = torch.from_numpy(np.stack([pair.visible for pair in scenes.pairs])).permute(0, 3, 1, 2) / 255
    assert apart(fb.align(infrared, visible), scenes.matrix) < 1


def test_a_pair_without_a_scene_does_no_harm(scenes) -> None:
    blind = np.full(SIZES[0], 29000, np.uint16)
    infrared = [pair.infrared for pair in scenes.pairs[:4]]
    rig = fb.align([*infrared, blind], [pair.visible for pair in scenes.pairs])
    assert apart(rig, scenes.matrix) < 1.5


def test_bright_and_dark_may_be_exchanged(scenes) -> None:
    inverted = [65535 - pair.infrared for pair in scenes.pairs]
    rig = fb.align(inverted, [pair.visible for pair in scenes.pairs])
    assert apart(rig, scenes.matrix) < 1


def test_noise_is_not_reliable() -> None:
    random = np.random.default_rng(0)
    rig = fb.align(list(random.random((4, *SIZES[0]))), list(random.random((4, *SIZES[1]))))
    assert not rig.reliable


def test_a_known_shift_and_scale(scenes) -> None:
    scene = fb.data.synthetic_scene(3, height=120, width=160)
    rig = fb.align(scene.infrared[:, 5:, 9:], scene.visible, model="shift", scale=(0.95, 1.05))
    assert rig.model == "shift"
    np.testing.assert_allclose(rig.map([[50, 50]]), [[59, 55]], atol=1.5)


@pytest.mark.parametrize("model", ["shift", "similarity", "affine", "homography"])
def test_points(model: str) -> None:
    truth = {
        "shift": planar.similarity(1, 0, (13, -6), (0, 0)),
        "similarity": planar.similarity(1.7, 4, (13, -6), (0, 0)),
        "affine": np.array([[1.7, 0.2, 9], [-0.1, 1.5, 4], [0, 0, 1]]),
        "homography": np.array([[1.7, 0.2, 9], [-0.1, 1.5, 4], [4e-4, -6e-4, 1]]),
    }[model]
    random = np.random.default_rng(1)
    here = random.uniform((0, 0), (160, 120), (14, 2))
    exact = np.concatenate([here, planar.mapped(truth, here)], axis=1)
    pair = np.zeros(SIZES[0], np.uint8), np.zeros((*SIZES[1], 3), np.uint8)
    rig = fb.align(*pair, points=exact)
    np.testing.assert_allclose(rig.matrix, truth, rtol=1e-6, atol=1e-6)
    assert rig.reliable
    noisy = exact + np.pad(random.normal(0, 1, (14, 2)), ((0, 0), (2, 0)))
    rig = fb.align(*pair, points=noisy)
    assert rig.model == model
    assert apart(rig, truth) < 1
    four = fb.align(*pair, points=exact[[0, 3, 7, 11]], model="homography")
    np.testing.assert_allclose(four.map(exact[[0, 3, 7, 11], :2]), exact[[0, 3, 7, 11], 2:], atol=1e-6)


def test_points_from_a_file(tmp_path) -> None:
    file = tmp_path / "points.csv"
    file.write_text(
        "\ufeffx,y,u,v\n0,0,10,20\n100,0,210,20\n# a remark\n100,50,210,120\n0,50,10,120\n\n", encoding="utf-8"
    )
    pair = np.zeros(SIZES[0], np.uint8), np.zeros((*SIZES[1], 3), np.uint8)
    rig = fb.align(*pair, points=file)
    np.testing.assert_allclose(rig.matrix, [[2, 0, 10], [0, 2, 20], [0, 0, 1]], atol=1e-9)
    file.write_text("0,0,10,20\n1,2,3\n")
    with pytest.raises(
        ValueError, match=r"points\.csv, line 2: expected infrared x and y, visible x and y, got '1,2,3'"
    ):
        fb.align(*pair, points=file)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        fb.align(*pair, points=tmp_path / "absent.csv")


def test_wrong_arguments_are_named(tmp_path) -> None:
    pair = np.zeros(SIZES[0], np.uint8), np.zeros((*SIZES[1], 3), np.uint8)
    line = [[i, i, 2 * i, 2 * i] for i in range(5)]
    for options, match in [
        ({"points": [[0, 0, 0, 0]] * 3}, "points must be at least four rows"),
        ({"points": line}, "points must not all lie on a line, as those of the infrared picture do"),
        ({"model": "homograpy"}, "unknown model 'homograpy'.*did you mean 'homography'"),
        ({"scale": (2, 1)}, "scale must be a positive number or two"),
        ({"degrees": 90}, "degrees must be a number from 0 to 45, got 90"),
        ({"points": np.zeros((4, 4)), "board": (7, 6)}, "points and board exclude each other"),
    ]:
        with pytest.raises(ValueError, match=match):
            fb.align(*pair, **options)
    with pytest.raises(ValueError, match="equally many, got 2 and 1"):
        fb.align([pair[0]] * 2, [pair[1]])
    with pytest.raises(ValueError, match=r"infrared pictures of a rig must have one size, got 120x160 and 100x160"):
        fb.align([pair[0], pair[0][:100]], [pair[1]] * 2)
    with pytest.raises(ValueError, match="both be folders, or neither"):
        fb.align(tmp_path, pair[1])
    with pytest.raises(TypeError, match="visible must be a picture, a folder or a sequence of pictures, got int"):
        fb.align(pair[0], 3)


def test_fuse_with_an_alignment(scenes, found) -> None:
    pair = scenes.pairs[0]
    fused = fb.fuse(pair.infrared, pair.visible, alignment=found)
    assert fused.shape == pair.visible.shape
    beyond = found.soft_coverage() == 0
    assert beyond.mean() > 0.2
    np.testing.assert_array_equal(fused[beyond], pair.visible[beyond])
    assert np.abs(fused.astype(int) - pair.visible)[found.soft_coverage() == 1].mean() > 3
    whole = fb.fuse(pair.infrared, pair.visible, alignment=found, tile=None)
    strips = fb.fuse(pair.infrared, pair.visible, alignment=found, tile=64)
    assert np.abs(whole.astype(int) - strips).max() <= 1
    with pytest.raises(ValueError, match="resize='infrared' and alignment exclude each other"):
        fb.fuse(pair.infrared, pair.visible, alignment=found, resize="infrared")
    with pytest.raises(TypeError, match="alignment must be an Alignment, got str"):
        fb.fuse(pair.infrared, pair.visible, alignment="rig.json")
    with pytest.raises(ValueError, match="same size"):
        fb.fuse(pair.infrared, pair.visible)


def test_an_identity_alignment_changes_nothing() -> None:
    scene = fb.data.synthetic_scene(3, height=64, width=96)
    same = fb.Alignment(np.eye(3), (64, 96), (64, 96))
    plain, aligned = (fb.fuse(scene.infrared, scene.visible, alignment=own) for own in (None, same))
    assert (same.soft_coverage() == 1).all()
    torch.testing.assert_close(aligned, plain, rtol=0, atol=1e-4)


def test_preview(scenes, found) -> None:
    shown = fb.alignment.preview(found, scenes.pairs[0].infrared, scenes.pairs[0].visible)
    assert shown.shape == (240, 648, 3)
    assert shown.dtype == np.uint8
    red, cyan = shown[:, 328:, 0].astype(float), shown[:, 328:, 1].astype(float)
    seen = found.soft_coverage() == 1
    before = shown[:, :320]
    after = np.corrcoef(red[seen], cyan[seen])[0, 1]
    assert after > np.corrcoef(before[..., 0].ravel().astype(float), before[..., 1].ravel().astype(float))[0, 1] + 0.05


def test_the_rig_is_what_it_says() -> None:
    """Without lenses the infrared picture is the scene that the matrix points at."""
    rig = synthetic_rig(1, 4, infrared_size=(60, 80), visible_size=(120, 160), noise=0.0)
    scene = fb.data.synthetic_scene(4, height=240, width=320, noise=0.0, time="dusk")
    assert rig.pairs[0].infrared.dtype == np.uint16
    celsius = rig.pairs[0].infrared / 100 - 273.15
    x, y = 33, 41
    there = planar.mapped(rig.matrix, np.array([[x, y]]))[0] * 2 + 0.5
    around = scene.infrared[0, round(there[1]) - 2 : round(there[1]) + 3, round(there[0]) - 2 : round(there[0]) + 3]
    assert abs(celsius[y, x] - (5 + 40 * float(around.mean()))) < 3
    assert np.array_equal(synthetic_rig(1, 4).pairs[0].visible, synthetic_rig(1, 4).pairs[0].visible)
    bent = synthetic_rig(1, 4, distortion=0.2)
    assert bent.visible_lens is not None
    assert tensor_to_array(scene.visible).dtype == np.uint8
