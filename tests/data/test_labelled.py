"""Pictures with classes: folders, degradation on the fly, and what is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fusionblocks.data import (
    DEGRADATIONS,
    DegradedPictures,
    LabelledPictures,
    class_folders,
    degrade,
    hold_out,
    synthetic_scene,
)
from fusionblocks.image import write_image


def touch(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


@pytest.fixture(scope="module")
def scenes() -> list[torch.Tensor]:
    return [synthetic_scene(seed, height=40, width=56).visible for seed in range(3)]


# --- folders of class folders ----------------------------------------------------------------------------------------


def test_folder_names_are_the_classes(tmp_path: Path) -> None:
    touch(tmp_path, "haze/2.png", "haze/10.JPG", "haze/notes.txt", "clean/a.tiff", ".git/x.png", "readme.md")
    listing = class_folders(tmp_path)
    assert list(listing) == ["clean", "haze"]
    assert [file.name for file in listing["haze"]] == ["2.png", "10.JPG"]
    assert list(class_folders(tmp_path, ("haze", "clean"))) == ["haze", "clean"]


@pytest.mark.parametrize(
    ("files", "classes", "error", "message"),
    [
        (["1.png"], None, ValueError, "has no class folders: expected one folder of pictures for each class"),
        (["haze/1.png"], None, ValueError, "has one class folder, haze: at least two"),
        (["haze/1.png", "clean/readme.txt"], None, ValueError, "clean holds no picture"),
        (
            ["low_ligth/1.png", "clean/1.png"],
            ("clean", "low_light"),
            ValueError,
            "unknown class folder in .*: 'low_ligth', .* did you mean 'low_light'",
        ),
        (["haze/1.png", "clean/1.png"], ("clean", "haze", "rain"), ValueError, "has no folder for the classes rain"),
    ],
)
def test_folders_that_are_refused(tmp_path: Path, files, classes, error, message: str) -> None:
    with pytest.raises(error, match=message):
        class_folders(touch(tmp_path, *files), classes)


def test_a_folder_that_is_absent_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match="there is no folder .*nowhere"):
        class_folders(tmp_path / "nowhere")


def test_labelled_pictures_are_read_in_colour_and_at_one_size(tmp_path: Path, scenes) -> None:
    write_image(tmp_path / "gray.png", np.full((30, 40), 51, np.uint8))
    write_image(tmp_path / "deep.tiff", np.full((20, 20), 13107, np.uint16))
    data = LabelledPictures([(tmp_path / "gray.png", 0), (tmp_path / "deep.tiff", 1), (scenes[0], 0)], size=16)
    pictures, labels = next(iter(DataLoader(data, batch_size=3)))
    assert pictures.shape == (3, 3, 16, 16)
    assert labels.tolist() == [0, 1, 0]
    torch.testing.assert_close(pictures[:2], torch.full((2, 3, 16, 16), 0.2))
    mirrored = {bool(torch.equal(LabelledPictures([(scenes[0], 0)], size=None, flip=True, seed=seed)[0][0],
                                 scenes[0].flip(-1))) for seed in range(8)}  # fmt: skip
    assert mirrored == {True, False}


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"bad\.png"):
        LabelledPictures([(tmp_path / "bad.png", 0)])[0]
    with pytest.raises(ValueError, match="items must hold at least one picture"):
        LabelledPictures([])


# --- clean pictures, degraded on the fly -----------------------------------------------------------------------------


def test_every_class_in_turn_over_every_picture(scenes) -> None:
    data = DegradedPictures(scenes, size=24)
    assert data.classes == ("clean", *DEGRADATIONS)
    assert len(data) == 3 * 8
    assert Counter(label for _, label in data) == dict.fromkeys(range(8), 3)
    for picture, _ in data:
        assert picture.shape == (3, 24, 24)
        assert 0 <= picture.min() <= picture.max() <= 1
    clean = [picture for picture, label in DegradedPictures(scenes, size=None) if label == 0]
    assert all(torch.equal(a, b) for a, b in zip(clean, scenes, strict=True))


def test_items_depend_on_seed_and_index_alone_and_no_two_are_alike(scenes) -> None:
    options = {"classes": ("haze", "rain"), "length": 40, "size": 32, "flip": True}
    data = DegradedPictures(scenes, seed=3, **options)
    once = torch.stack([data[index][0] for index in range(40)])
    state = torch.get_rng_state()
    backwards = torch.stack([data[index][0] for index in reversed(range(40))]).flip(0)
    assert torch.equal(once, backwards)
    assert torch.equal(state, torch.get_rng_state())
    assert len({picture.numpy().tobytes() for picture in once}) == 40
    other = torch.stack([picture for picture, _ in DegradedPictures(scenes, seed=4, **options)])
    assert not any(torch.equal(a, b) for a, b in zip(once, other))
    workers = torch.cat([batch for batch, _ in DataLoader(data, batch_size=10, num_workers=1)])
    assert torch.equal(once, workers)


def test_strength_stays_in_its_range() -> None:
    gray = [torch.full((1, 8, 8), 0.1)]
    data = DegradedPictures(gray, ("clean", "over_exposure"), length=60, size=None, strength=(0.2, 0.4))
    levels = [picture.mean() for picture, label in data if label == 1]
    low, high = (degrade(gray[0], "over_exposure", strength=strength).mean() for strength in (0.2, 0.4))
    assert low <= min(levels) < max(levels) <= high
    assert max(levels) - min(levels) > 0.7 * (high - low)


def test_degraded_at_its_own_size_before_it_is_resized() -> None:
    gray = [torch.full((1, 64, 64), 0.5)]
    noisy = [DegradedPictures(gray, ("noise", "clean"), size=size, strength=(0.5, 0.5))[0][0] for size in (None, 16)]
    assert noisy[1].std() < 0.5 * noisy[0].std()
    assert torch.equal(noisy[0][0], noisy[0][2]), "a gray picture has gray noise"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": ("clean", "fog")}, "unknown class: 'fog', expected one of 'clean', 'haze'"),
        ({"classes": ("clean", "low-light")}, "unknown class: 'low-light', .*; did you mean 'low_light'"),
        ({"classes": ("clean",)}, "classes must be at least two different names, got 'clean'"),
        ({"classes": ("haze", "haze")}, "classes must be at least two different names, got 'haze', 'haze'"),
        ({"strength": (0.0, 1.0)}, r"strength must be a rising range above 0, got \(0.0, 1.0\)"),
        ({"strength": (0.6, 0.5)}, "strength must be a rising range"),
        ({"strength": (0.5, 2.0)}, r"strength must lie in \[0, 1\], got 2.0"),
        ({"length": 0}, "length must be at least 1, got 0"),
        ({"pictures": []}, "pictures must hold at least one picture"),
    ],
)
def test_what_is_refused(scenes, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DegradedPictures(**{"pictures": scenes, **arguments})


def test_hold_out_parts_have_nothing_in_common_and_are_never_empty() -> None:
    learned, held = hold_out(range(50), 0.2, seed=1)
    assert sorted(learned + held) == list(range(50))
    assert (len(learned), len(held)) == (40, 10)
    assert hold_out(range(50), 0.2, seed=1)[1] == held != hold_out(range(50), 0.2, seed=2)[1]
    assert [len(part) for part in hold_out(range(2), 0.01)] == [1, 1]
    assert [len(part) for part in hold_out(range(2), 0.99)] == [1, 1]
    with pytest.raises(ValueError, match="class haze must be at least two pictures"):
        hold_out(["1.png"], what="class haze")
    with pytest.raises(ValueError, match="share must lie between 0 and 1, got 1"):
        hold_out(range(4), 1)
