"""Datasets as they are on disk: tiny folders in the layouts of the published ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fusionblocks.data import LAYOUTS, MASKS, UnpairedError, open_dataset
from fusionblocks.data.layouts import ROAD_CLASSES
from fusionblocks.image import write_image

SIZE = (8, 10)


def touch(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def draw(root: Path, *files: str) -> Path:
    """Write pictures by where they belong: a level of its own each, class numbers where labels are kept."""
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        level = np.random.default_rng(len(file)).integers(0, 9, SIZE, np.uint8)
        write_image(root / file, level)
    return root


def msrs(root: Path) -> Path:
    files = [
        f"{split}/{kind}/{name}.png"
        for split, names in (("train", ("00002D", "00010N")), ("test", ("00004N",)))
        for kind in ("ir", "vi", "Segmentation_labels")
        for name in names
    ]
    return draw(root, *files)


def mfnet(root: Path) -> Path:
    for index, name in enumerate(("00001D", "00002N", "00003N", "00004D")):
        for kind in ("images", "labels"):
            (root / kind).mkdir(parents=True, exist_ok=True)
        samples = np.random.default_rng(index).integers(0, 256, (*SIZE, 4), np.uint8)
        from PIL import Image

        Image.fromarray(samples, "RGBA").save(root / "images" / f"{name}.png")
        Image.fromarray(samples[..., 0] % 9).save(root / "labels" / f"{name}.png")
    for split, names in (
        ("train", "00001D\n00001D_flip\n00003N\n00003N_flip\n"),
        ("val", "00002N\n"),
        ("test", "00004D\n"),
        ("test_day", "00004D\n"),
        ("test_night", "\n"),
    ):
        (root / f"{split}.txt").write_text(names)
    return root


# --- the published ones ----------------------------------------------------------------------------------------------


def test_msrs_has_splits_and_labels(tmp_path: Path) -> None:
    msrs(tmp_path)
    data = open_dataset(tmp_path)
    assert data.names == ["00002D", "00010N"]
    assert data.groups[1].files["visible"] == tmp_path / "train/vi/00010N.png"
    item = data[0]
    assert set(item) == {"infrared", "visible", "labels", "name", *MASKS}
    warm = (item["labels"] >= 1) & (item["labels"] <= 3)
    assert torch.equal(item["salient"][0].bool(), warm), "cars, people and bikes"
    assert open_dataset(tmp_path, "test").names == open_dataset(tmp_path, "val").names == ["00004N"]
    assert open_dataset(tmp_path, "all").names == ["00002D", "00010N", "00004N"]
    assert set(open_dataset(tmp_path, labels=False)[0]) == {"infrared", "visible", "name"}
    assert set(open_dataset(tmp_path, masks=("boundary",))[0]) == {"infrared", "visible", "labels", "name", "boundary"}


def test_msrs_as_psfusion_has_it_brings_masks(tmp_path: Path) -> None:
    kinds = ("ir", "vi", "label", "bi", "bd", "mask")
    draw(tmp_path, *(f"train/{kind}/1.png" for kind in kinds), *(f"test/{kind}/2.png" for kind in kinds[:3]))
    files = open_dataset(tmp_path).groups[0].files
    assert {name: file.parent.name for name, file in files.items()} == {
        "infrared": "ir", "visible": "vi", "labels": "label", "binary": "bi", "boundary": "bd", "salient": "mask",
    }  # fmt: skip
    assert set(open_dataset(tmp_path, "test")[0]) >= set(MASKS), "derived where there are no files"
    assert "labels" not in open_dataset(tmp_path, labels=False, masks=("salient",))[0], "not read if not needed"


def test_splits_of_ones_own_may_look_like_msrs(tmp_path: Path) -> None:
    draw(tmp_path, *(f"{split}/{kind}/1.png" for split in ("train", "val") for kind in ("ir", "vi", "labels")))
    write_image(tmp_path / "train/labels/1.png", np.full(SIZE, 20, np.uint8))
    assert open_dataset(tmp_path)[0]["labels"].unique().tolist() == [20], "any classes"
    draw(tmp_path / "bare", "train/ir/1.png", "train/vi/1.png")
    assert set(open_dataset(tmp_path / "bare")[0]) == {"infrared", "visible", "name"}


@pytest.mark.parametrize("layout", ["msrs", "msrs as psfusion has it", "mfnet", "folder"])
def test_no_class_is_no_foreground_in_any_layout(tmp_path: Path, layout: str) -> None:
    labels = np.zeros(SIZE, np.uint8)
    labels[:, 4:] = 2
    labels[:2], labels[6:] = 255, 255
    if layout == "mfnet":
        mfnet(tmp_path)
        folder, name = "labels", "00001D"
    else:
        folder = {"msrs": "Segmentation_labels", "folder": "labels"}.get(layout, "label")
        folder, name = f"train/{folder}", "1"
        draw(tmp_path, "train/ir/1.png", "train/vi/1.png")
        (tmp_path / folder).mkdir()
    write_image(tmp_path / folder / f"{name}.png", labels)
    item = open_dataset(tmp_path)[0]
    assert torch.equal(item["labels"], torch.from_numpy(labels).long())
    person = torch.from_numpy(labels == 2)
    assert torch.equal(item["binary"][0].bool(), person)
    assert torch.equal(item["salient"][0].bool(), person)
    border = torch.zeros(SIZE, dtype=torch.bool)
    border[2:6, 3:5] = True
    assert torch.equal(item["boundary"][0].bool(), border)


def test_labels_outside_the_classes_are_refused(tmp_path: Path) -> None:
    msrs(tmp_path)
    write_image(tmp_path / "train/Segmentation_labels/00010N.png", np.full(SIZE, len(ROAD_CLASSES), np.uint8))
    with pytest.raises(ValueError, match=r"train/Segmentation_labels/00010N\.png hold 9, expected 0 to 8"):
        open_dataset(tmp_path)[1]


def test_mfnet_has_the_infrared_picture_as_the_fourth_channel(tmp_path: Path) -> None:
    mfnet(tmp_path)
    data = open_dataset(tmp_path)
    assert data.names == ["00001D", "00003N"], "without the mirrored copies, which are not there"
    samples = np.random.default_rng(2).integers(0, 256, (*SIZE, 4), np.uint8)
    item = data[1]
    assert torch.equal(item["infrared"][0], torch.from_numpy(samples[..., 3]).float() / 255)
    assert torch.equal(item["visible"], torch.from_numpy(samples[..., :3]).permute(2, 0, 1).float() / 255)
    assert torch.equal(item["labels"], torch.from_numpy(samples[..., 0] % 9).long())
    assert [open_dataset(tmp_path, split).names for split in ("val", "test", "test_day")] == [
        ["00002N"], ["00004D"], ["00004D"],
    ]  # fmt: skip
    assert len(open_dataset(tmp_path, "all")) == 4
    with pytest.raises(ValueError, match="has no pairs in its split 'test_night'"):
        open_dataset(tmp_path, "test_night")
    (tmp_path / "test.txt").unlink()
    with pytest.raises(ValueError, match=r"has no list test\.txt of its split 'test'"):
        open_dataset(tmp_path, "test")
    write_image(tmp_path / "images/00001D.png", np.zeros((*SIZE, 3), np.uint8))
    with pytest.raises(ValueError, match=r"00001D\.png must have red, green, blue and infrared in 4 channels"):
        data[0]


def test_names_of_a_list_that_are_not_there_are_told(tmp_path: Path) -> None:
    mfnet(tmp_path)
    (tmp_path / "train.txt").write_text("00001D.png\n00009N\n00003N\n")
    (tmp_path / "labels/00003N.png").unlink()
    (tmp_path / "labels/00004D.png").unlink()
    with pytest.raises(UnpairedError, match="2 names make no pair") as caught:
        open_dataset(tmp_path)
    assert caught.value.problems == ("00003N: only in the packed folder", "00009N: listed in train.txt, but not there")
    assert open_dataset(tmp_path, unpaired="skip").names == ["00001D"]


def test_llvip_roadscene_and_m3fd(tmp_path: Path) -> None:
    llvip = touch(
        tmp_path / "LLVIP",
        *(f"{kind}/{split}" for kind in ("infrared", "visible") for split in ("train/010001.jpg", "test/190001.jpg")),
        "Annotations/010001.xml",
    )
    assert [open_dataset(llvip, split).names for split in ("train", "test")] == [["010001"], ["190001"]]
    road = touch(
        tmp_path / "RoadScene",
        *(f"{kind}/FLIR_{index}.jpg" for kind in ("cropinfrared", "crop_LR_visible") for index in (6, 18)),
        "crop_HR_visible/FLIR_6.jpg",
    )
    assert open_dataset(road).groups[0].files["visible"] == road / "crop_LR_visible/FLIR_6.jpg"
    assert open_dataset(road, "test").names == ["FLIR_6", "FLIR_18"], "it has no splits"
    m3fd = touch(tmp_path / "M3FD", "Ir/00000.png", "Vis/00000.png", "Annotation/00000.xml")
    assert open_dataset(m3fd).groups[0].files["infrared"] == m3fd / "Ir/00000.png"


def test_tno_is_told_apart_by_file_names(tmp_path: Path) -> None:
    scenes = {
        "Athena_images/2_men_in_front_of_house": ("IR_meting003_g.bmp", "VIS_meting003_r.bmp"),
        "Athena_images/APC_2/view_1": ("2_fk_ge_03_005.bmp", "1_fk_ge_03_005.bmp"),
        "Athena_images/bunker": ("IR_bunker_g.bmp", "bunker_r.bmp"),
        "Athena_images/heather": ("IR_hei_vis_g.bmp", "VIS_hei_vis_r.bmp"),
        "Triclobs_images/Bosnia": ("LWIR_B.bmp", "VIS_R.bmp", "NIR_G.bmp"),
        "Triclobs_images/Kaptein_01": ("IR01.bmp", "Vis01.bmp", "NIR01.bmp"),
        "Triclobs_images/Marne_04": ("Marne_04_IR.bmp", "Marne_04_Vis.bmp", "Marne_04_II.bmp"),
        "Triclobs_images/barbed_wire_2": ("c_LWIR-New_24RGB_1110.tif", "a_VIS-New_24RGB_1110.tif", "b_NIR-New.tif"),
        "DHV_images/bench": ("IR_37rad.bmp", "VIS_37dhvR.bmp", "NIR_37dhvG.bmp"),
        "tank": ("LWIR.tif", "Vis.tif"),
    }
    touch(tmp_path, *(f"{scene}/{file}" for scene, files in scenes.items() for file in files))
    touch(tmp_path, "FEL_images/Duine_sequence/thermal/7400i.bmp", "Triclobs_images/Balls/NIR.bmp", "README.txt")
    touch(tmp_path, "Triclobs_images/Balls/VIS.bmp")
    found = {group.name: group.files for group in open_dataset(tmp_path).groups}
    assert {name: (files["infrared"].name, files["visible"].name) for name, files in found.items()} == {
        scene.replace("/", "_"): files[:2] for scene, files in scenes.items()
    }


# --- folders of one's own --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("ir", "vi"), ("ir", "vis"), ("infrared", "visible"), ("thermal", "visible")])
def test_plain_folders(tmp_path: Path, names: tuple[str, str]) -> None:
    touch(tmp_path, *(f"{name}/{index}.png" for name in names for index in (2, 10, 1)))
    assert open_dataset(tmp_path).names == ["1", "2", "10"]
    (tmp_path / "test.txt").write_text("2.png\n")
    assert open_dataset(tmp_path).names == ["1", "10"], "what the other lists leave"
    assert open_dataset(tmp_path, "test").names == ["2"]
    assert open_dataset(tmp_path, "all").names == ["1", "2", "10"]


def test_plain_folders_with_splits_and_labels(tmp_path: Path) -> None:
    draw(
        tmp_path, *(f"{split}/{kind}/1.png" for split in ("train", "val") for kind in ("infrared", "visible", "labels"))
    )
    item = open_dataset(tmp_path, "val", masks=("salient",))[0]
    assert torch.equal(item["salient"][0].bool(), item["labels"] > 0)
    with pytest.raises(ValueError, match="has no split 'test', only 'train', 'val'"):
        open_dataset(tmp_path, "test")
    draw(tmp_path / "other", "ir/1.png", "vi/1.png")
    with pytest.raises(ValueError, match=r"has no labels: expected labels or \{split\}/labels"):
        open_dataset(tmp_path / "other", labels=True)
    with pytest.raises(ValueError, match="the binary mask of 1 has neither a file nor labels"):
        open_dataset(tmp_path / "other", masks=("binary",))


def test_splits_of_ones_own_that_look_like_a_datasets(tmp_path: Path) -> None:
    draw(tmp_path, *(f"{split}/{kind}/{split}.png" for split in ("train", "val") for kind in ("ir", "vi")))
    assert [open_dataset(tmp_path, split).names for split in ("train", "val")] == [["train"], ["val"]]


def test_datasets_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    msrs(tmp_path / "MSRS")
    monkeypatch.delenv("FUSIONBLOCKS_DATA", raising=False)
    monkeypatch.chdir(tmp_path / "MSRS")
    with pytest.raises(NotADirectoryError, match="there is no folder msrs; to open 'mfnet', .* set FUSIONBLOCKS_DATA"):
        open_dataset("msrs")
    monkeypatch.setenv("FUSIONBLOCKS_DATA", str(tmp_path))
    assert open_dataset("msrs").names == ["00002D", "00010N"]
    with pytest.raises(NotADirectoryError, match="there is no folder llvip nor in "):
        open_dataset("llvip")


def test_what_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "cold/1.png", "bright/1.png")
    with pytest.raises(ValueError, match="has no layout that is known") as caught:
        open_dataset(tmp_path)
    assert all(f"\n  {name}: " in str(caught.value) for name in LAYOUTS)
    with pytest.raises(ValueError, match="unknown layout: 'mrss', .*did you mean 'msrs'"):
        open_dataset(tmp_path, layout="mrss")
    with pytest.raises(ValueError, match="has not the layout msrs: expected {split}/ir and {split}/vi"):
        open_dataset(tmp_path, layout="msrs")
    touch(tmp_path, "ir/1.png", "vi/1.png")
    with pytest.raises(ValueError, match="unknown split: 'trian', .*did you mean 'train'"):
        open_dataset(tmp_path, "trian")
    with pytest.raises(ValueError, match="unknown mask: 'edges'"):
        open_dataset(tmp_path, masks=("edges",))
    (tmp_path / "ir/1.png").rename(tmp_path / "ir/2.png")
    with pytest.raises(UnpairedError, match="1: only in the visible folder"):
        open_dataset(tmp_path)
