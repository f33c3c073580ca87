from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import segment_anything
import torch
from PIL import Image

import fusionblocks as fb
from fusionblocks.guidance import SAMMasks
from tests.helpers.command import run
from tests.helpers.tiny_sam import LOOSE, tiny_sam

GRID = [part for name, value in LOOSE.items() for part in (f"--{name.replace('_', '-')}", value)]
SETTINGS = "masks.json"
# the command in a process of its own, with the small network in the registry and an encoder that takes its time
SLOW = """
import sys, time
import segment_anything
from tests.helpers.tiny_sam import tiny_sam
def slow():
    sam = tiny_sam()
    sam.image_encoder.register_forward_hook(lambda *_: time.sleep(0.25))
    return sam
segment_anything.sam_model_registry["vit_b"] = slow
from fusionblocks.cli import main
main()
"""


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for kind in ("ir", "vis"):
        (tmp_path / kind).mkdir()
    for name in ("1", "2", "10"):
        scene = fb.data.synthetic_scene(int(name), height=43, width=60)
        fb.image.write_image(tmp_path / f"ir/{name}.png", fb.image.tensor_to_array(scene.infrared))
        fb.image.write_image(tmp_path / f"vis/{name}.jpg", fb.image.tensor_to_array(scene.visible))
    torch.save(tiny_sam().state_dict(), tmp_path / "tiny.pth")
    return tmp_path


@pytest.fixture
def tiny_registry(monkeypatch) -> None:
    monkeypatch.setitem(segment_anything.sam_model_registry, "vit_b", tiny_sam)


def call(folder: Path, *options: object) -> tuple[object, ...]:
    places = ("--infrared", folder / "ir", "--visible", folder / "vis", "--output", folder / "masks")
    return ("masks", *places, "--checkpoint", folder / "tiny.pth", *GRID, *options)


def written(folder: Path) -> list[str]:
    """Return all files of the output below its two folders, hidden ones too."""
    return sorted(str(file.relative_to(folder / "masks")) for file in folder.glob("masks/*/*"))


ALL = sorted(f"{kind}/{name}.png" for kind in ("infrared", "visible") for name in ("1", "2", "10"))


def test_a_folder_of_pairs(folders: Path, tiny_registry) -> None:
    code, output = run(*call(folders))
    assert code == 0
    assert written(folders) == ALL
    assert re.search(r"6 masks to make, about \d+\.\d s each on cpu \(.*measured on 1\): \d+ s in all", output)
    assert "masks of 3 pairs" in output
    guide = SAMMasks(tiny_sam(), **LOOSE)
    for kind, suffix in (("ir", "png"), ("vis", "jpg")):
        picture = fb.image.array_to_tensor("picture", fb.image.read_image(folders / f"{kind}/10.{suffix}"))
        expected = guide.map(picture[None])[0, 0].numpy()
        found = np.asarray(Image.open(folders / "masks" / {"ir": "infrared", "vis": "visible"}[kind] / "10.png"))
        assert expected.any()
        assert found.dtype == np.uint8
        assert np.abs(found / 255 - expected).max() <= 0.5 / 255 + 1e-6


def test_the_masks_guide_fusion(folders: Path, tiny_registry) -> None:
    run(*call(folders))
    small = {"channels": 8, "norm_groups": 4, "transformer_channels": 8, "num_inference_steps": 4}
    torch.manual_seed(0)
    fb.create_model("sgdfuse", **small).save_pretrained(folders / "network")
    masks = ("--infrared-mask", folders / "masks/infrared", "--visible-mask", folders / "masks/visible")
    pair = ("--infrared", folders / "ir", "--visible", folders / "vis", "--checkpoint", folders / "network")
    code, _ = run("fuse", *pair, "--output", folders / "fused", *masks)
    assert code == 0
    assert len(list((folders / "fused").iterdir())) == 3
    # a mask that one pair lacks costs that pair alone
    (folders / "masks/visible/2.png").unlink()
    code, output = run("fuse", *pair, "--output", folders / "less", *masks)
    assert code == 1
    assert "skipped: 2: --visible-mask" in output
    assert sorted(file.name for file in (folders / "less").iterdir()) == ["1.png", "10.png"]


def test_the_same_call_keeps_what_is_there(folders: Path, tiny_registry) -> None:
    assert run(*call(folders))[0] == 0
    (folders / "masks/visible/2.png").unlink()
    (folders / "masks/infrared/1.png").write_bytes(b"mine")
    before = {file: (folders / "masks" / file).stat().st_mtime_ns for file in written(folders)}
    code, output = run(*call(folders))
    assert code == 0
    assert "2 of 3 pairs are done already" in output
    assert "1 masks to make" in output
    assert written(folders) == ALL
    for file, changed in before.items():
        assert (folders / "masks" / file).stat().st_mtime_ns == changed
    code, output = run(*call(folders))
    assert code == 0
    assert "3 of 3 pairs are done already" in output
    assert "to make" not in output


def test_a_kill_loses_nothing_that_was_finished(folders: Path, tiny_registry) -> None:
    command = [sys.executable, "-c", SLOW, *map(str, call(folders))]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(list(folders.glob("masks/*/[0-9]*.png"))) < 2:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    finished = list(folders.glob("masks/*/*.png"))
    assert 2 <= len(finished) < 6
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in finished}
    for file in finished:  # whole, not half-written
        assert np.asarray(Image.open(file)).shape == (43, 60)
    assert run(*call(folders))[0] == 0
    for file, state in before.items():
        assert (file.read_bytes(), file.stat().st_mtime_ns) == state
    assert set(ALL) <= set(written(folders))
    # as if it had never been interrupted
    interrupted = {name: (folders / "masks" / name).read_bytes() for name in ALL}
    (folders / "masks").rename(folders / "first")
    assert run(*call(folders))[0] == 0
    assert {name: (folders / "masks" / name).read_bytes() for name in ALL} == interrupted


@pytest.fixture
def heard() -> Iterator[None]:
    """Hear Ctrl-C even where it is ignored: in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
def test_ctrl_c_says_how_to_go_on(folders: Path, monkeypatch) -> None:
    passes = []

    def interrupted() -> segment_anything.modeling.Sam:
        def stop(*_: object) -> None:
            passes.append(1)
            if len(passes) == 4:  # one for the estimate and two masks are through
                signal.raise_signal(signal.SIGINT)

        sam = tiny_sam()
        sam.image_encoder.register_forward_hook(stop)
        return sam

    monkeypatch.setitem(segment_anything.sam_model_registry, "vit_b", interrupted)
    code, output = run(*call(folders))
    assert code == 130
    assert "interrupted: 1 pairs are done; the same call goes on from there" in output
    assert written(folders) == ["infrared/1.png", "visible/1.png"]


def test_pairs_that_cannot_be_read_are_reported_and_the_rest_done(folders: Path, tiny_registry) -> None:
    (folders / "ir/1.png").write_bytes((folders / "ir/1.png").read_bytes()[:99])
    Image.open(folders / "vis/2.jpg").resize((30, 20)).save(folders / "vis/2.jpg")
    (folders / "vis/7.jpg").write_bytes((folders / "vis/10.jpg").read_bytes())
    code, output = run(*call(folders))
    assert code == 1
    assert re.search(r"skipped: 1: .*1\.png", output)
    assert "skipped: 2: infrared and visible have different sizes, 43x60 and 20x30" in output
    assert "skipped: 7: only in the visible folder" in output
    assert "measured on 10" in output
    assert written(folders) == ["infrared/10.png", "visible/10.png"]


def test_masks_of_other_settings_are_not_mixed(folders: Path, tiny_registry) -> None:
    assert run(*call(folders))[0] == 0
    before = {name: (folders / "masks" / name).read_bytes() for name in ALL}
    code, output = run(*call(folders, "--encoding", "edges"))
    assert code == 2
    assert "holds masks made with encoding=index, not edges: choose another folder" in output
    torch.save(tiny_sam(seed=22).state_dict(), folders / "tiny.pth")
    code, output = run(*call(folders))
    assert code == 2
    assert "weights=" in output
    assert {name: (folders / "masks" / name).read_bytes() for name in ALL} == before
    settings = json.loads((folders / "masks" / SETTINGS).read_text())
    assert settings["encoding"] == "index"
    assert settings["points_per_side"] == LOOSE["points_per_side"]


def test_masks_of_unknown_making_are_not_mixed(folders: Path, tiny_registry) -> None:
    (folders / "masks/infrared").mkdir(parents=True)
    (folders / "masks/infrared/1.png").write_bytes((folders / "ir/1.png").read_bytes())
    code, output = run(*call(folders))
    assert code == 2
    assert "no masks.json" in output
    (folders / "masks" / SETTINGS).write_text("{")
    code, output = run(*call(folders))
    assert code == 2
    assert "masks.json is damaged" in output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"--infrared": "absent"}, "infrared must be a folder"),
        ({"--checkpoint": "absent.pth"}, "sam_vit_b_01ec64.pth"),
        ({"--model": "vit_x"}, "vit_b, vit_l, vit_h"),
        ({"--encoding": "edge"}, "encoding must be one of index, binary, score, edges"),
        ({"--encoder": "kornia"}, "encoder must be one of"),
        ({"--image-size": "100"}, "image_size must be"),
        ({"--output": "tiny.pth"}, "--output must be a folder"),
        ({"--device": "abacus"}, "--device abacus"),
    ],
)
def test_bad_calls_say_why_in_one_line(folders: Path, tiny_registry, monkeypatch, options: dict, message: str) -> None:
    monkeypatch.chdir(folders)
    usual = {"--infrared": "ir", "--visible": "vis", "--output": "masks", "--checkpoint": "tiny.pth"}
    code, output = run("masks", *[part for option in {**usual, **options}.items() for part in option])
    assert code == 2
    assert message in output
    assert len(output.strip().splitlines()) == 1
    assert not list(folders.glob("masks/*/*"))
