from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from fusionblocks.data import degrade, synthetic_scene
from fusionblocks.guidance import CLIPDegradationClassifier
from fusionblocks.image import tensor_to_array, write_image
from tests.helpers.command import run

SMALL = ("--steps", 3, "--batch-size", 4, "--rank", 2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The name of a CLIP model small enough for a test, known to open_clip, and a file of weights for it."""
    import open_clip

    folder = tmp_path_factory.mktemp("clip")
    name = "ViT-tiny-for-tests"
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
    }
    (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    torch.manual_seed(5)
    torch.save(open_clip.create_model(name).state_dict(), folder / "weights.pt")
    return name, folder / "weights.pt"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``clean/`` with six scenes, and ``classes/`` with three clean and three over-exposed ones."""
    root = tmp_path_factory.mktemp("pictures")
    for folder in ("clean", "classes/clean", "classes/over_exposure"):
        (root / folder).mkdir(parents=True)
    for seed in range(6):
        visible = synthetic_scene(seed, height=40, width=50).visible
        bright = degrade(visible, "over_exposure", strength=0.9)
        write_image(root / f"clean/{seed}.png", tensor_to_array(visible))
        kind, picture = ("clean", visible) if seed % 2 else ("over_exposure", bright)
        write_image(root / f"classes/{kind}/{seed}.png", tensor_to_array(picture))
    return root


def call(model: tuple[str, Path], output: Path, *arguments: object) -> tuple[int, str]:
    name, weights = model
    return run("train-guidance", "--model", name, "--pretrained", weights, "--output", output, *SMALL, *arguments)


@pytest.mark.parametrize("source", ["data", "clean", "synthetic"])
def test_the_file_loads_into_the_same_model(source: str, model, pictures: Path, tmp_path: Path) -> None:
    sources = {
        "data": ("--data", pictures / "classes"),
        "clean": ("--clean", pictures / "clean", "--classes", "clean,over_exposure"),
        "synthetic": ("--synthetic", 4, "--classes", "clean,over_exposure"),
    }
    output = tmp_path / "adapters.safetensors"
    code, text = call(model, output, *sources[source])
    assert code == 0, text
    held_out = {"data": 1, "clean": 1, "synthetic": 1}[source]
    for name in ("clean", "over_exposure"):
        assert re.search(rf"{name}\s+\W\s+{held_out}\s+\W\s+[\d.]+%", text)
    assert str(output) in text
    assert [file.name for file in tmp_path.iterdir()] == [output.name]
    name, weights = model
    classifier = CLIPDegradationClassifier(name, weights, classes=("clean", "over_exposure"), rank=2)
    fresh = {key: value.clone() for key, value in classifier.state_dict().items()}
    classifier.load_adapters(output)
    changed = {key for key, value in classifier.state_dict().items() if not torch.equal(value, fresh[key])}
    assert any("in_proj" in key for key in changed)
    assert {"embedding_head.weight", "class_head.weight"} <= changed


def test_the_seed_decides(model, pictures: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.safetensors" for name in "abc"]
    for file, seed in zip(files, (3, 3, 4)):
        arguments = ("--clean", pictures / "clean", "--classes", "clean,haze", "--seed", seed)
        assert call(model, file, *arguments)[0] == 0
    assert files[0].read_bytes() == files[1].read_bytes() != files[2].read_bytes()


def test_epochs_go_through_the_pictures(model, pictures: Path, tmp_path: Path) -> None:
    name, weights = model
    arguments = ("--model", name, "--pretrained", weights, "--data", pictures / "classes", "--batch-size", 2)
    code, text = run("train-guidance", *arguments, "--epochs", 3, "--output", tmp_path / "a.safetensors")
    assert code == 0
    assert "6/6" in text  # four pictures to learn from, three times, two a batch


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "one of --data, --clean and --synthetic is needed, got none of them"),
        (("--synthetic", 4, "--clean", "x"), "one of .* is needed, got --clean and --synthetic"),
        (("--data", "{root}/clean"), "clean has no class folders"),
        (("--data", "{root}/absent"), "there is no folder .*absent"),
        (("--clean", "{root}/absent"), "--clean must be a folder, got .*absent"),
        (("--clean", "{root}"), "holds no picture"),
        (("--data", "{root}/classes", "--classes", "clean,over_exposed"), "'over_exposure', .* mean 'over_exposed'"),
        (("--synthetic", 4, "--classes", "clean,hase"), "unknown class: 'hase', .*; did you mean 'haze'"),
        (("--synthetic", 4, "--classes", "clean"), "--classes must be two or more different names"),
        (("--synthetic", 1), "--synthetic must be at least 2, got 1"),
        (("--synthetic", 4, "--steps", 0), "--steps must be at least 1, got 0"),
        (("--synthetic", 4, "--epochs", 2), "--steps and --epochs exclude each other"),
        (("--synthetic", 4, "--held-out", 1), "--held-out must lie between 0 and 1"),
        (("--synthetic", 4, "--lr", 0), "lr must be positive"),
        (("--synthetic", 4, "--device", "toaster"), "--device toaster cannot be used here"),
        (("--synthetic", 4, "--output", "{root}/a.pth"), "a.pth must end in .safetensors"),
        (("--synthetic", 4, "--output", "{root}/absent/a.safetensors"), "cannot be written"),
        (("--synthetic", 4, "--pretrained", "absent.pt"), "absent.pt, which does not exist"),
        (("--synthetic", 4, "--model", "ViT-tiny-for-test"), "mean 'ViT-tiny-for-tests'"),
    ],
)
def test_what_is_refused(model, pictures: Path, tmp_path: Path, arguments: tuple, message: str) -> None:
    filled = [str(argument).format(root=pictures) for argument in arguments]
    code, text = call(model, tmp_path / "a.safetensors", *filled)
    assert code == 2
    assert re.search(message, " ".join(text.split()))
    assert not any(tmp_path.iterdir())


def test_an_empty_and_a_single_class_folder_are_refused(model, pictures: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    (root / "haze").mkdir(parents=True)
    (root / "haze/1.png").write_bytes((pictures / "clean/1.png").read_bytes())
    output = tmp_path / "a.safetensors"
    assert "one class folder, haze: at least two" in call(model, output, "--data", root)[1]
    (root / "clean").mkdir()
    assert "clean holds no picture" in call(model, output, "--data", root)[1]
    (root / "clean/2.png").write_bytes((pictures / "clean/2.png").read_bytes())
    code, text = call(model, output, "--data", root)
    assert code == 2
    assert "the pictures of class folder clean" in text
    assert "at least two pictures" in text


def test_a_damaged_picture_is_named_and_nothing_is_written(model, pictures: Path, tmp_path: Path) -> None:
    folder, output = tmp_path / "clean", tmp_path / "a.safetensors"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.png").write_bytes((pictures / "clean/1.png").read_bytes()[:200])
    code, text = call(model, output, "--clean", folder)
    assert code == 2
    assert re.search(r"cannot read .*\d\.png", text)
    assert not output.exists()
