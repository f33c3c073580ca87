"""Guides and the report of the experts, from the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fusionblocks as fb
from fusionblocks.guidance import CLIPDegradationClassifier
from tests.helpers.command import run

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of a tiny CLIP model that open_clip knows by name: its weights, and adapters and heads on top."""
    open_clip = pytest.importorskip("open_clip")
    folder = tmp_path_factory.mktemp("clip")
    (folder / "tiny-clip.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder / "tiny-clip.json")
    torch.manual_seed(0)
    torch.save(open_clip.create_model("tiny-clip").state_dict(), folder / "tower.pt")
    classifier = CLIPDegradationClassifier("tiny-clip", folder / "tower.pt", rank=2, embedding_channels=8)
    classifier.save_adapters(folder / "heads.safetensors")
    return {"tower": folder / "tower.pt", "adapters": folder / "heads.safetensors"}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("network")
    fb.create_model("sgafusion", channels=4, semantic_channels=8).save_pretrained(folder)
    return folder


@pytest.fixture
def pairs(tmp_path: Path) -> list[object]:
    for seed, name in enumerate(("1", "2")):
        scene = fb.data.synthetic_scene(seed, height=33, width=50)
        for kind in ("infrared", "visible"):
            (tmp_path / kind).mkdir(exist_ok=True)
            fb.image.write_image(
                tmp_path / kind / f"{name}.png", fb.image.tensor_to_array(getattr(scene, kind).expand(3, -1, -1))
            )
    return ["fuse", "--infrared", tmp_path / "infrared", "--visible", tmp_path / "visible"]


def test_clip_guides_a_folder_of_pairs_and_is_cached(pairs, network, clip, tmp_path: Path) -> None:
    options = ["--guidance", "clip", "--guidance-checkpoint", clip["tower"], "--guidance-adapters", clip["adapters"]]
    call = [*pairs, "--checkpoint", network, *options, "--cache", tmp_path / "cache"]
    code, output = run(*call, "--output", tmp_path / "fused")
    assert code == 0, output
    assert "2 pictures" in output
    guide = CLIPDegradationClassifier.from_adapters(clip["adapters"], pretrained=clip["tower"])
    model = fb.SGAFusion.from_pretrained(network)
    model.attach_guidance(guide)
    for name in ("1", "2"):
        expected = fb.fuse(tmp_path / "infrared" / f"{name}.png", tmp_path / "visible" / f"{name}.png", model=model)
        assert np.array_equal(np.asarray(Image.open(tmp_path / "fused" / f"{name}.png")), np.asarray(expected))

    # the second run asks the tower nothing
    entries = sorted(file for file in (tmp_path / "cache").rglob("*") if file.is_file())
    assert len(entries) == 2
    times = [file.stat().st_mtime_ns for file in entries]
    assert run(*call, "--output", tmp_path / "again")[0] == 0
    assert [file.stat().st_mtime_ns for file in entries] == times
    for name in ("1", "2"):
        assert (tmp_path / "again" / f"{name}.png").read_bytes() == (tmp_path / "fused" / f"{name}.png").read_bytes()


def test_an_untrained_head_is_said(pairs, network, clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "fusionblocks.guidance.clip.classifier.CLIPDegradationClassifier.__init__.__defaults__", ("tiny-clip", None)
    )
    code, output = run(*pairs, "--checkpoint", network, "--guidance", "clip", "--output", tmp_path / "fused")
    assert code == 0, output
    assert "untrained" in output
    assert "--guidance-adapters" in output


def test_the_experts_of_a_folder(pairs, network, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    np.save(tmp_path / "semantic.npy", np.ones(8))
    call = [*pairs, "--checkpoint", network, "--semantic", tmp_path / "semantic.npy", "--output", tmp_path / "fused"]
    plain = run(*call)
    assert plain[0] == 0
    before = (tmp_path / "fused" / "1.png").read_bytes()
    # pictures that exist are left only where their reports exist as well
    code, output = run(*call, "--experts", tmp_path / "experts", "--skip-existing")
    assert code == 0, output
    assert sorted(file.name for file in (tmp_path / "experts").iterdir()) == ["1.csv", "1.png", "2.csv", "2.png"]
    assert (tmp_path / "fused" / "1.png").read_bytes() == before
    rows = list(csv.DictReader((tmp_path / "experts" / "1.csv").read_text().splitlines()))
    assert {row["expert"] for row in rows if row["mixture"] == "encoder.degradation"} == {"dehaze", "low light", "base"}
    assert fb.image.read_image(tmp_path / "experts" / "1.png").ndim == 3
    written = (tmp_path / "experts" / "1.csv").stat().st_mtime_ns
    assert run(*call, "--experts", tmp_path / "experts", "--skip-existing")[0] == 0
    assert (tmp_path / "experts" / "1.csv").stat().st_mtime_ns == written


def test_the_experts_of_one_pair(pairs, network, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    np.save(tmp_path / "semantic.npy", np.ones(8))
    one = ["fuse", *(part / "1.png" if isinstance(part, Path) else part for part in pairs[1:])]
    call = [*one, "--checkpoint", network, "--semantic", tmp_path / "semantic.npy", "--output", tmp_path / "night.png"]
    assert run(*call, "--experts", tmp_path / "experts")[0] == 0
    assert sorted(file.name for file in (tmp_path / "experts").iterdir()) == ["night.csv", "night.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--guidance", "clpi"], "did you mean 'clip'"),
        (["--guidance", "sam"], "'sam' guides 'sgdfuse'"),
        (["--guidance-checkpoint", "weights.pt"], "--guidance clip"),
        (["--cache", "cache"], "--guidance clip"),
        (["--guidance", "clip", "--guidance-adapters", "absent.safetensors"], "absent.safetensors"),
        (["--guidance", "clip", "--guidance-checkpoint", "absent.pt"], "absent.pt"),
        (["--experts", "experts", "--tile", "64"], "--tile"),
        (["--experts", "experts", "--model", "laplacian"], "no mixtures"),
    ],
)
def test_bad_calls_say_why(pairs, network, tmp_path: Path, monkeypatch, options: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    weights = [] if "laplacian" in options else ["--checkpoint", network]
    code, output = run(*pairs, *weights, "--output", "fused", *options)
    assert code == 2, output
    assert message in output
    assert "error:" in output.strip().splitlines()[-1]
    assert not (tmp_path / "fused").exists()


def test_adapters_are_for_clip(pairs, tmp_path: Path) -> None:
    options = ["--model", "sgdfuse", "--guidance", "sam", "--guidance-adapters", "a.safetensors"]
    code, output = run(*pairs, *options, "--output", tmp_path / "fused")
    assert code == 2
    assert "--guidance-adapters is for --guidance clip" in output
