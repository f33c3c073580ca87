from __future__ import annotations

from pathlib import Path

import pytest

from fusionblocks.data import UnpairedError, match_folders, pair_folders


def fill(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    return folder


def test_pairs_by_stem_in_natural_order(tmp_path: Path) -> None:
    infrared = fill(tmp_path / "ir", "a10.tiff", "a2.PNG", "B1.png")
    visible = fill(tmp_path / "vis", "a10.jpg", "a2.jpg", "B1.bmp", ".hidden.png", "notes.txt")
    listing = pair_folders(infrared, visible)
    assert [pair.name for pair in listing.pairs] == ["a2", "a10", "B1"]
    assert listing.pairs[1].infrared == infrared / "a10.tiff"
    assert listing.pairs[1].visible == visible / "a10.jpg"
    assert listing.problems == ()


def test_names_without_a_partner_and_doubled_names_are_problems(tmp_path: Path) -> None:
    infrared = fill(tmp_path / "ir", "1.png", "2.png", "3.png", "3.jpg")
    visible = fill(tmp_path / "vis", "1.png", "3.png", "4.png")
    listing = pair_folders(infrared, visible)
    assert [pair.name for pair in listing.pairs] == ["1"]
    assert listing.problems == (
        "2: only in the infrared folder",
        "3: more than one file of this name in the infrared folder (3.jpg, 3.png)",
        "4: only in the visible folder",
    )


def test_no_folder_empty_folder_and_same_folder_are_refused(tmp_path: Path) -> None:
    full, empty = fill(tmp_path / "full", "1.png"), fill(tmp_path / "empty", "readme.txt")
    with pytest.raises(NotADirectoryError, match="visible must be a folder"):
        pair_folders(full, tmp_path / "absent")
    with pytest.raises(ValueError, match="infrared folder .*empty holds no picture"):
        pair_folders(empty, full)
    with pytest.raises(ValueError, match="same folder"):
        pair_folders(full, full)


def test_groups_have_one_file_of_each_folder(tmp_path: Path) -> None:
    folders = {
        "infrared": fill(tmp_path / "ir", "1.png", "2.png", "3.png", "10.png"),
        "visible": fill(tmp_path / "vis", "1.jpg", "2.jpg", "3.jpg", "10.jpg"),
        "smfnet": fill(tmp_path / "smfnet", "1.png", "10.png", "3.png"),
        "psfusion": fill(tmp_path / "psfusion", "1.bmp", "10.png", "3.png", "3.tif", "4.png"),
    }
    listing = match_folders(folders)
    assert [group.name for group in listing.groups] == ["1", "10"]
    assert listing.groups[0].files == {
        "infrared": tmp_path / "ir/1.png",
        "visible": tmp_path / "vis/1.jpg",
        "smfnet": tmp_path / "smfnet/1.png",
        "psfusion": tmp_path / "psfusion/1.bmp",
    }
    assert listing.problems == (
        "2: not in the smfnet and psfusion folders",
        "3: more than one file of this name in the psfusion folder (3.png, 3.tif)",
        "4: only in the psfusion folder",
    )


def test_a_folder_under_two_names_is_refused(tmp_path: Path) -> None:
    full, other = fill(tmp_path / "full", "1.png"), fill(tmp_path / "other", "1.png")
    with pytest.raises(ValueError, match="infrared and smfnet are the same folder"):
        match_folders({"infrared": full, "visible": other, "smfnet": other / ".." / "full"})


# --- names that differ ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("infrared", "visible", "names", "rule"),
    [
        (["1_ir.png", "2_ir.png"], ["1_vi.png", "2_vi.jpg"], ["1", "2"], "by suffix _ir / _vi"),
        (["IR1.png", "IR10.png"], ["VIS1.png", "VIS10.png"], ["1", "10"], "by prefix IR / VIS"),
        (["thermal_a.tiff", "thermal_b.tiff"], ["rgb_a.png", "rgb_b.png"], ["a", "b"], "by prefix thermal_ / rgb_"),
        (["FLIR_1.jpg", "FLIR_2.jpg"], ["FLIR_1_RGB.jpg", "FLIR_2_RGB.jpg"], ["FLIR_1", "FLIR_2"],
         "by suffix (none) / _RGB"),
        (["A.PNG", "b.png"], ["a.png", "B.png"], ["A", "b"], "by name, whatever its case"),
        (["caf\u00e9.png"], ["cafe\u0301.png"], ["caf\u00e9"], "by name"),
        (["a-IR.png", "b-ir.png"], ["rgb_a.png", "rgb_b.png"], ["a", "b"], "by suffix -IR / prefix rgb_"),
        (["1.png", "2.png"], ["1.png", "2.png", "1_vi.png"], ["1", "2"], "by name"),
    ],
)  # fmt: skip
def test_names_without_the_camera_in_them(
    tmp_path: Path, infrared: list[str], visible: list[str], names: list[str], rule: str
) -> None:
    listing = pair_folders(fill(tmp_path / "a", *infrared), fill(tmp_path / "b", *visible))
    assert [pair.name for pair in listing.pairs] == names
    assert listing.rule == rule
    assert [pair.infrared.name for pair in listing.pairs] == infrared


def test_fused_pictures_are_found_by_the_names_that_fuse_gives(tmp_path: Path) -> None:
    folders = {
        "infrared": fill(tmp_path / "ir", "1_ir.png", "2_ir.png"),
        "visible": fill(tmp_path / "vi", "1_vi.png", "2_vi.png"),
        "ours": fill(tmp_path / "ours", "1.png", "2.png"),
        "theirs": fill(tmp_path / "theirs", "1_fused.png", "2_fused.png"),
        "named": fill(tmp_path / "named", "1_vi.png", "2_vi.png"),
    }
    listing = match_folders(folders)
    assert [group.name for group in listing.groups] == ["1", "2"]
    assert {kind: file.name for kind, file in listing.groups[1].files.items()} == {
        "infrared": "2_ir.png", "visible": "2_vi.png", "ours": "2.png", "theirs": "2_fused.png", "named": "2_vi.png",
    }  # fmt: skip


def test_one_folder_of_both_cameras(tmp_path: Path) -> None:
    both = fill(tmp_path / "both", "1_ir.png", "1_vi.png", "2_ir.png", "2_vi.png", "3_ir.png")
    listing = pair_folders(both, both)
    assert [(pair.infrared.name, pair.visible.name) for pair in listing.pairs] == [
        ("1_ir.png", "1_vi.png"),
        ("2_ir.png", "2_vi.png"),
    ]
    assert listing.rule == "by suffix _ir / _vi in one folder"
    assert listing.problems == ("3: only in the infrared folder",)
    marked = fill(tmp_path / "marked", "a.L.png", "a.R.png")
    with pytest.raises(ValueError, match="nothing in its names tells the cameras apart"):
        pair_folders(marked, marked)
    listing = pair_folders(marked, marked, pattern=("*.L.png", "*.R.png"))
    assert [(pair.name, pair.infrared.name, pair.visible.name) for pair in listing.pairs] == [
        ("a", "a.L.png", "a.R.png")
    ]


def test_a_folder_with_a_folder_for_each_camera(tmp_path: Path) -> None:
    fill(tmp_path / "IR", "1.png")
    fill(tmp_path / "VIS", "1.png")
    listing = pair_folders(tmp_path, tmp_path)
    assert listing.pairs[0].infrared == tmp_path / "IR/1.png"
    assert listing.rule == "by name in IR / VIS"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_are_paired_line_by_line(tmp_path: Path, encoding: str) -> None:
    for day in ("day", "night"):
        fill(tmp_path / day, "t1.png", "c1.png")
    (tmp_path / "ir.txt").write_text("# thermal\nday/t1.png\n\nnight/t1.png\n", encoding=encoding)
    (tmp_path / "vis.txt").write_text("day/c1.png\r\nnight/c1.png\r\n", encoding=encoding)
    listing = pair_folders(tmp_path / "ir.txt", tmp_path / "vis.txt")
    assert [(pair.name, pair.infrared) for pair in listing.pairs] == [
        ("day_c1", tmp_path / "day/t1.png"),
        ("night_c1", tmp_path / "night/t1.png"),
    ]
    assert listing.rule == "line by line"


def test_lists_that_are_refused(tmp_path: Path) -> None:
    fill(tmp_path / "ir", "1.png", "2.png")
    (tmp_path / "a.txt").write_text("ir/1.png\nir/2.png\n")
    (tmp_path / "short.txt").write_text("ir/1.png\n")
    (tmp_path / "wrong.txt").write_text("ir/1.png\nir/9.png\n")
    (tmp_path / "empty.txt").write_text("\n")
    for other, message in {
        "short.txt": "equally long, got 2 in infrared, 1 in visible",
        "wrong.txt": r"visible list .*wrong.txt, line 2: there is no file .*ir/9.png",
        "empty.txt": "names no file",
    }.items():
        with pytest.raises(ValueError, match=message):
            pair_folders(tmp_path / "a.txt", tmp_path / other)
    with pytest.raises(ValueError, match="must both be lists, or neither, got visible"):
        pair_folders(tmp_path / "a.txt", tmp_path / "ir")


def test_without_a_pair_names_of_both_are_shown_and_the_pattern(tmp_path: Path) -> None:
    infrared = fill(tmp_path / "ir", "cam0_01.png", "cam0_02.png", "cam0_13.png", "cam0_14.png")
    visible = fill(tmp_path / "vis", "left01x.png", "left02x.png", "left13x.png")
    with pytest.raises(UnpairedError) as caught:
        pair_folders(infrared, visible)
    message = str(caught.value)
    assert "infrared has cam0_01, cam0_02, cam0_13, ...; visible has left01x, left02x, left13x" in message
    assert "--pattern 'cam0_*' 'left*x' would pair 3" in message
    listing = pair_folders(infrared, visible, pattern=("cam0_*", "left*x"))
    assert [pair.name for pair in listing.pairs] == ["01", "02", "13"]
    for pattern in (("cam0", "left*x"), ("*_*", "left*x")):
        with pytest.raises(ValueError, match="pattern must have one"):
            pair_folders(infrared, visible, pattern=pattern)


def test_two_rules_that_fit_equally_well_are_not_guessed_between(tmp_path: Path) -> None:
    infrared = fill(tmp_path / "ir", "1_ir.png", "2_thermal.png")
    visible = fill(tmp_path / "vis", "1_vi.png", "2_rgb.png")
    with pytest.raises(
        ValueError, match="pair 1 files by suffix _ir / _vi, and as many others by suffix _thermal / _rgb"
    ):
        pair_folders(infrared, visible)
    # names that another rule would pair otherwise: a name on both sides counts once
    infrared = fill(tmp_path / "a", "x.png", "X.png")
    visible = fill(tmp_path / "b", "x.png")
    assert [pair.infrared.name for pair in pair_folders(infrared, visible).pairs] == ["x.png"]
