from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from fusionblocks import SMFNet
from fusionblocks.data import synthetic_scene
from fusionblocks.image import tensor_to_array, write_image
from fusionblocks.training import read_log
from tests.helpers.command import run
from tests.training.scenes import SMALL

NARROW = (
    "config={channels: 16, num_heads: 4, base_layers: 1, base_depth: 1, dilations: [1, 2]}",
    "phases.reconstruction.epochs=1",
    "phases.fusion.epochs=1",
    "phases.reconstruction.patch=32",
    "phases.fusion.patch=32",
    "phases.fusion.batch=2",
    "phases.fusion.accumulate=1",
)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pairs")
    for folder in ("ir", "vi"):
        (root / folder).mkdir()
    for seed in range(4):
        scene = synthetic_scene(seed, height=36, width=40)
        write_image(root / f"ir/{seed}.png", tensor_to_array(scene.infrared))
        write_image(root / f"vi/{seed}.png", tensor_to_array(scene.visible))
    return root


def call(data: Path, output: Path, *arguments: object, recipe: object = "smfnet") -> tuple[int, str]:
    settings = [word for change in NARROW for word in ("--set", change)]
    code, text = run(
        "train", "--recipe", recipe, "--data", data, "--output", output, "--device", "cpu", *settings, *arguments
    )
    return code, " ".join(text.split())


def test_two_phases_from_a_folder_of_pairs(pairs: Path, tmp_path: Path) -> None:
    metrics = ("--set", "validation={metrics: [EN, SD], best: SD}")
    code, text = call(pairs, tmp_path, "--validation", pairs, *metrics)
    assert code == 0, text
    assert f"weights: {tmp_path}/weights" in text
    assert "fusion (smfnet_fusion)" in text  # the bar
    assert [line["phase"] for line in read_log(tmp_path) if "loss" in line] == ["reconstruction", "fusion", "fusion"]
    assert [set(line["validation"]) for line in read_log(tmp_path) if "validation" in line] == [{"EN", "SD"}]
    assert len(list(tmp_path.glob("pictures/*.png"))) == 1
    assert SMFNet.from_pretrained(tmp_path / "weights").config.channels == 16
    # again: refused, unless the run is to go on
    assert "holds the checkpoints of a run already" in call(pairs, tmp_path, *metrics)[1]
    code, text = call(pairs, tmp_path, "--resume", *metrics)
    assert code == 0, text
    assert len(read_log(tmp_path)) == 4
    code, text = call(pairs, tmp_path, "--resume", *metrics, "--set", "phases.fusion.batch=3")
    assert code == 2
    assert "another recipe: phases.fusion.batch is 2 there and 3 here" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--recipe", "smfnett"), "neither a file nor one of .* mean 'smfnet'"),
        (("--set", "phases.fusion.epoch=3"), "unknown recipe key phases.fusion.epoch .*mean 'epochs'"),
        (("--set", "phases.fuson.epochs=3"), "no phase 'fuson' .*mean 'fusion'"),
        (("--set", "phases.fusion.epochs"), "--set must be KEY=VALUE"),
        (("--set", "phases.fusion.epochs=many"), "phases.fusion.epochs must be a whole number, got 'many'"),
        (("--set", "phases.fusion.losses={ssm: 1}"), "unknown term 'ssm'"),
        (("--set", "phases.fusion.parts=[decodr]"), "no part 'decodr' .*mean 'decoder'"),
        (("--set", "phases.fusion.objective=psfusion"), "phase 'fusion' needs labels, binary, boundary, salient"),
        (("--set", "phases.fusion.patch=64"), "crop of 64x64 does not fit into a picture of 36x40"),
        (("--set", "config.chanels=3"), "unknown SMFNetConfig keyword 'chanels' .*mean 'channels'"),
        (("--data", "{root}/absent"), "absent"),
        (("--weights", "{root}/absent"), "there is no file .*absent"),
        (("--device", "toaster"), "--device toaster cannot be used here"),
        (("--workers", -1), "workers must be at least 0"),
        (("--guidance", "clip"), "takes no guidance"),
        (("--masks", "{root}/ir"), "must be a folder of masks"),
    ],
)
def test_what_is_refused(pairs: Path, tmp_path: Path, arguments: tuple, message: str) -> None:
    filled = [str(argument).replace("{root}", str(pairs)) for argument in arguments]
    code, text = call(pairs, tmp_path / "run", *filled)
    assert code == 2, text
    assert re.search(message, text), text


def test_an_unpaired_name_is_listed_or_skipped(pairs: Path, tmp_path: Path) -> None:
    root = tmp_path / "pairs"
    for folder in ("ir", "vi"):
        (root / folder).mkdir(parents=True)
        for file in (pairs / folder).iterdir():
            (root / folder / file.name).write_bytes(file.read_bytes())
    (root / "vi" / "3.png").unlink()
    code, text = call(root, tmp_path / "run")
    assert code == 2
    assert "3: only in the infrared folder" in text
    code, text = call(root, tmp_path / "run", "--skip-unpaired", "--set", "phases.fusion.steps=1", "--set",
                      "phases.fusion.epochs=null")  # fmt: skip
    assert code == 0, text


def test_the_masks_of_a_folder_guide_what_sgdfuse_learns(pairs: Path, tmp_path: Path) -> None:
    phases = ("preliminary", "diffusion", "head")
    settings = [f"config={SMALL['sgdfuse'][0]}".replace("'", "")]
    for phase in phases:
        settings += [f"phases.{phase}.{value}" for value in ("steps=1", "batch=2", "accumulate=1", "patch=32")]
    words = [word for setting in settings for word in ("--set", setting)]

    def learn(name: str) -> tuple[int, str]:
        places = ("--data", pairs, "--masks", tmp_path / name, "--output", tmp_path / f"run_{name}")
        code, text = run("train", "--recipe", "sgdfuse", *places, "--device", "cpu", *words)
        return code, " ".join(text.split())

    losses = {}
    for name, level in {"empty": 0, "full": 255}.items():
        for kind in ("infrared", "visible"):
            (tmp_path / name / kind).mkdir(parents=True)
            for seed in range(4):
                write_image(tmp_path / name / kind / f"{seed}.png", np.full((36, 40), level, np.uint8))
        code, text = learn(name)
        assert code == 0, text
        losses[name] = {line["phase"]: line["loss"] for line in read_log(tmp_path / f"run_{name}")}
    assert set(losses["empty"]) == set(phases)
    assert losses["empty"]["preliminary"] == losses["full"]["preliminary"], "comes before the masks"
    assert losses["empty"]["diffusion"] != losses["full"]["diffusion"]
    (tmp_path / "full/visible/2.png").unlink()
    code, text = learn("full")
    assert code == 2
    assert "1 masks are missing: 2 (visible_mask)" in text
