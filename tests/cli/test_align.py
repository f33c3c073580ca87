from __future__ import annotations

import numpy as np
import pytest

import fusionblocks as fb
from fusionblocks.image import planar, read_image, write_image
from tests.helpers.command import run


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("rig")
    rig = fb.data.synthetic_rig(4, 30, infrared_size=(60, 80), visible_size=(120, 160), view=0.8)
    for name in ("ir", "vis"):
        (root / name).mkdir()
    for i, pair in enumerate(rig.pairs):
        write_image(root / "ir" / f"{i}.tiff", pair.infrared)
        write_image(root / "vis" / f"{i}.jpg", pair.visible)
    return root, rig


def test_from_two_folders_to_fused_pictures(folders, tmp_path) -> None:
    root, rig = folders
    file, check = tmp_path / "rig.json", tmp_path / "check.png"
    told_code, told = run(
        "align", "--infrared", root / "ir", "--visible", root / "vis", "--output", file, "--preview", check
    )
    assert told_code == 0, told
    assert "visible pixels, reliable" in " ".join(told.split())
    found = fb.Alignment.load(file)
    assert planar.mean_displacement(rig.matrix, found.matrix, (60, 80), (120, 160)) < 1.5
    assert read_image(check).shape == (120, 328, 3)
    both = ["--infrared", root / "ir", "--visible", root / "vis"]
    fused_code, fused = run(
        "fuse", *both, "--output", tmp_path / "fused", "--alignment", file, "--thermal-range", "27900", "31900"
    )
    assert fused_code == 0, fused
    picture = read_image(tmp_path / "fused" / "2.png")
    assert picture.shape == (120, 160, 3)
    beyond = found.soft_coverage() == 0
    assert np.abs(picture.astype(int) - read_image(root / "vis" / "2.jpg"))[beyond].max() <= 1


def test_points(folders, tmp_path) -> None:
    root, _ = folders
    points = tmp_path / "points.csv"
    points.write_text("0,0,10,20\n79,0,168,20\n79,59,168,138\n0,59,10,138\n40,30,90,80\n")
    pair = ["--infrared", root / "ir" / "0.tiff", "--visible", root / "vis" / "0.jpg"]
    told_code, told = run("align", *pair, "--output", tmp_path / "rig.json", "--points", points)
    assert told_code == 0, told
    np.testing.assert_allclose(fb.Alignment.load(tmp_path / "rig.json").map([[1, 1]]), [[12, 22]], atol=0.1)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--preview", "check.txt"], "--preview check.txt must end in one of"),
        (["--points", "absent.csv"], "there is no file absent.csv"),
        (["--model", "affin"], "unknown model 'affin' (did you mean 'affine'?)"),
        (["--output", "absent/rig.json"], "there is no folder"),
    ],
)
def test_wrong_options_are_told_in_a_line(folders, tmp_path, options, match) -> None:
    root, _ = folders
    pair = ["--infrared", root / "ir" / "0.tiff", "--visible", root / "vis" / "0.jpg"]
    told_code, told = run("align", *pair, "--output", tmp_path / "rig.json", *options)
    assert told_code == 2
    assert match in " ".join(told.split())
    assert not (tmp_path / "rig.json").exists()


def test_a_wrong_alignment_is_refused(folders, tmp_path) -> None:
    root, _ = folders
    (tmp_path / "rig.json").write_text("{}")
    pair = ["--infrared", root / "ir" / "0.tiff", "--visible", root / "vis" / "0.jpg"]
    told_code, told = run("fuse", *pair, "--output", tmp_path / "fused.png", "--alignment", tmp_path / "rig.json")
    assert told_code == 2
    assert "does not hold an alignment" in " ".join(told.split())
