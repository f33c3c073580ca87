from __future__ import annotations

from pathlib import Path

import pytest

from fusionblocks.data import pair_folders


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
