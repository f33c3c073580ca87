from __future__ import annotations

from pathlib import Path

import pytest

from fusionblocks.data import match_folders, pair_folders


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
