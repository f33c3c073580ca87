from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fusionblocks as fb
from tests.helpers.command import run


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    random = np.random.default_rng(0)
    for kind, shape in (("ir", (30, 43)), ("vis", (30, 43, 3))):
        (tmp_path / kind).mkdir()
        for name in ("1", "2", "10"):
            Image.fromarray(random.integers(0, 256, shape, np.uint8)).save(tmp_path / kind / f"{name}.png")
    return tmp_path / "ir", tmp_path / "vis"


def test_one_pair(folders, tmp_path: Path) -> None:
    infrared, visible = (folder / "1.png" for folder in folders)
    target = tmp_path / "fused.png"
    code, output = run("fuse", "--infrared", infrared, "--visible", visible, "--output", target)
    assert code == 0
    assert str(target) in output
    # made fast, the network sums in another order
    written, expected = (np.asarray(picture, np.int16) for picture in (Image.open(target), fb.fuse(infrared, visible)))
    assert np.abs(written - expected).max() <= 1
    assert not np.array_equal(written, np.asarray(fb.fuse(infrared, visible, model="laplacian")))


def test_folders_with_a_bad_file_go_on_and_end_with_an_error(folders, tmp_path: Path) -> None:
    infrared, visible = folders
    (infrared / "2.png").write_bytes((infrared / "2.png").read_bytes()[:200])
    (visible / "7.png").write_bytes((visible / "1.png").read_bytes())
    target = tmp_path / "fused"
    code, output = run("fuse", "--infrared", infrared, "--visible", visible, "--output", target)
    assert code == 1
    assert sorted(file.name for file in target.iterdir()) == ["1.png", "10.png"]
    assert re.search(r"skipped: 2: .*2\.png", output)
    assert "skipped: 7: only in the visible folder" in output
    assert "2 pictures" in output
    assert "2 skipped" in output


def test_skip_existing_leaves_finished_pictures(folders, tmp_path: Path) -> None:
    target = tmp_path / "fused"
    target.mkdir()
    (target / "1.png").write_bytes(b"mine")
    arguments = ("fuse", "--infrared", folders[0], "--visible", folders[1], "--output", target)
    assert run(*arguments, "--skip-existing")[0] == 0
    assert (target / "1.png").read_bytes() == b"mine"
    assert len(list(target.iterdir())) == 3
    assert run(*arguments)[0] == 0
    assert (target / "1.png").read_bytes() != b"mine"


def test_own_checkpoint_names_its_network(folders, tmp_path: Path) -> None:
    fb.create_model("laplacian", levels=1).save_pretrained(tmp_path / "saved")
    infrared, visible = (folder / "1.png" for folder in folders)
    target = tmp_path / "fused.png"
    code, _ = run(
        "fuse", "--infrared", infrared, "--visible", visible, "--output", target, "--checkpoint", tmp_path / "saved"
    )
    assert code == 0
    expected = fb.fuse(infrared, visible, model=fb.create_model("laplacian", levels=1))
    assert np.array_equal(np.asarray(Image.open(target)), np.asarray(expected))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"--infrared": "absent.png"}, "absent.png"),
        ({"--model": "psfusoin"}, "did you mean 'psfusion'"),
        ({"--output": "fused.xyz"}, "fused.xyz"),
        ({"--device": "abacus"}, "--device abacus"),
        ({"--device": "cuda:99"}, "--device cuda:99"),
        ({"--resize": "both"}, "resize"),
        ({"--tile": "3"}, "tile"),
        ({"--checkpoint": "absent.pth", "--model": "psfusion"}, "absent.pth"),
        ({"--checkpoint": "weights.pth"}, "there is no file weights.pth, and no network of that name"),
        ({"--semantic": "absent.npy"}, "absent.npy"),
        ({"--visible-mask": "absent.png"}, "absent.png"),
    ],
)
def test_bad_calls_say_why_in_one_line(folders, tmp_path: Path, monkeypatch, options: dict, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    call = {"--infrared": folders[0] / "1.png", "--visible": folders[1] / "1.png", "--output": "fused.png", **options}
    code, output = run("fuse", *[part for option in call.items() for part in option])
    assert code == 2
    assert message in output
    assert len(output.strip().splitlines()) == 1
    assert not (tmp_path / "fused.png").exists()


def test_inputs_are_never_overwritten(folders) -> None:
    infrared, visible = folders
    before = (visible / "1.png").read_bytes()
    for arguments in (
        (infrared / "1.png", visible / "1.png", visible / "1.png"),
        (infrared, visible, visible),
    ):
        code, output = run("fuse", "--infrared", arguments[0], "--visible", arguments[1], "--output", arguments[2])
        assert code == 2
        assert "overwritten" in output
    assert (visible / "1.png").read_bytes() == before


def test_different_sizes_name_both(folders, tmp_path: Path) -> None:
    infrared, visible = (folder / "1.png" for folder in folders)
    Image.open(infrared).resize((21, 15)).save(infrared)
    arguments = ("fuse", "--infrared", infrared, "--visible", visible, "--output", tmp_path / "fused.png")
    code, output = run(*arguments)
    assert code == 2
    assert "15x21" in output
    assert "30x43" in output
    assert run(*arguments, "--resize", "infrared")[0] == 0
    assert Image.open(tmp_path / "fused.png").size == (43, 30)


def test_a_folder_that_names_no_network_is_refused(folders, tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    arguments = ("fuse", "--infrared", folders[0], "--visible", folders[1], "--output", tmp_path / "fused")
    code, output = run(*arguments, "--checkpoint", tmp_path / "saved")
    assert code == 2
    assert "config.json" in output
    (tmp_path / "saved/config.json").write_text(json.dumps({"width": 3}))
    assert run(*arguments, "--checkpoint", tmp_path / "saved")[0] == 2


def test_whatever_one_file_does_the_others_are_fused(folders, tmp_path: Path, monkeypatch) -> None:
    import fusionblocks.inference as inference

    fuse = inference.fuse

    def broken(infrared, visible, **options):
        if infrared.stem == "1":
            raise KeyError("decoder")
        return fuse(infrared, visible, **options)

    monkeypatch.setattr(inference, "fuse", broken)
    arguments = ("--infrared", folders[0], "--visible", folders[1], "--output", tmp_path / "fused")
    code, output = run("fuse", *arguments)
    assert code == 1
    assert "1: 'decoder'" in output
    assert not (tmp_path / "fused/1.png").exists()
    assert len(list((tmp_path / "fused").iterdir())) == len(list(folders[0].iterdir())) - 1
