"""Weights as people have them, found in folders, files and wrappers, and loaded strictly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import fusionblocks as fb
from fusionblocks.training import train
from tests.helpers.golden import load_case
from tests.helpers.networks import NARROW

OPTIONS = NARROW["smfnet"]
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def network() -> fb.FusionModel:
    torch.manual_seed(0)
    return fb.SMFNet(**OPTIONS).eval()


def before(prefix: str) -> Callable[[State], State]:
    return lambda state: {f"{prefix}{key}": value for key, value in state.items()}


WRAPPERS: dict[str, Callable[[State], Any]] = {
    "plain": lambda state: state,
    "module.": before("module."),
    "module.module.": before("module.module."),
    "_orig_mod.": before("_orig_mod."),
    "module._orig_mod.": before("module._orig_mod."),
    "model.": before("model."),
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "Lightning": lambda state: {"state_dict": before("model.")(state), "global_step": 5, "optimizer_states": [{}]},
    "model": lambda state: {"model": state, "optimizer": {"state": {}}},
    "model_state_dict": lambda state: {"model_state_dict": before("module.")(state), "loss": torch.tensor(1.0)},
    "averaged": lambda state: {"n_averaged": torch.tensor(4), **before("module.")(state)},
    "averaged within": lambda state: {"model_ema": {"n_averaged": torch.tensor(4), **before("module.")(state)}},
}


def assert_same(model: nn.Module, expected: nn.Module) -> None:
    assert not model.training
    for key, value in expected.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("named", [True, False])
def test_wrappers(network, tmp_path: Path, wrapper: str, named: bool) -> None:
    file = tmp_path / "weights.pth"
    torch.save(WRAPPERS[wrapper](network.state_dict()), file)
    loaded = fb.load_model("smfnet", file, **OPTIONS) if named else fb.load_model(network.__class__(**OPTIONS), file)
    assert_same(loaded, network)


def test_a_path_alone_names_its_network(network, tmp_path: Path) -> None:
    network.save_pretrained(tmp_path / "saved")
    for path in (tmp_path / "saved", tmp_path / "saved/model.safetensors", str(tmp_path / "saved")):
        assert_same(fb.load_model(path), network)
    own = fb.create_model("fusionblocks")
    save_file(own.state_dict(), tmp_path / "a.safetensors")
    torch.save({"state_dict": before("module.")(own.state_dict())}, tmp_path / "b.pth")
    for file in ("a.safetensors", "b.pth"):
        loaded = fb.load_model(tmp_path / file)
        assert loaded.name == "fusionblocks"
        assert_same(loaded, own)


def test_a_name_alone_loads_what_comes_with_the_library() -> None:
    assert_same(fb.load_model("fusionblocks"), fb.create_model("fusionblocks"))
    with pytest.raises(ValueError, match="no weights"):
        fb.load_model("psfusion")


def test_the_averaged_copy_is_taken_on_request(network, tmp_path: Path) -> None:
    other = {key: value + 1 if value.is_floating_point() else value for key, value in network.state_dict().items()}
    file = tmp_path / "both.pth"
    torch.save({"model": network.state_dict(), "ema": other}, file)
    assert_same(fb.load_model("smfnet", file, **OPTIONS), network)
    averaged = fb.load_model("smfnet", file, ema=True, **OPTIONS)
    assert all(torch.equal(value, other[key]) for key, value in averaged.state_dict().items())
    assert_same(fb.load_model("smfnet", file, ema=False, **OPTIONS), network)


def test_a_checkpoint_of_training(tmp_path: Path) -> None:
    pairs = [fb.data.synthetic_scene(seed, height=32, width=32)._asdict() for seed in range(2)]
    phases = {"fusion": {"objective": "smfnet_fusion", "steps": 2, "batch": 2}}
    trained = train({"model": "smfnet", "config": OPTIONS, "phases": phases}, pairs, output=tmp_path, progress=False)
    (folder,) = (tmp_path / "checkpoints").glob("step_*2")
    for path in (folder, folder / "state.pt"):
        assert_same(fb.load_model("smfnet", path, **OPTIONS), trained)


@pytest.mark.parametrize("wrapper", ["plain", "module.", "state_dict", "MTAN"])
def test_the_authors_weights_bare_and_wrapped(tmp_path: Path, wrapper: str) -> None:
    state = load_case("psf_full").state
    wrappers = {**WRAPPERS, "MTAN": lambda state: {"MTAN": state}}
    torch.save(wrappers[wrapper](state), tmp_path / "best.pth")
    expected = fb.load_official("psfusion", {"MTAN": state})
    assert_same(fb.load_model("psfusion", tmp_path / "best.pth"), expected)
    assert_same(fb.load_model(tmp_path / "best.pth"), expected)


def test_what_does_not_fit_says_what_was_tried(network, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    state = dict(network.state_dict())
    state.pop("decoder.head.0.weight")
    torch.save({"state_dict": before("module.")(state)}, file)
    with pytest.raises(ValueError, match=r"missing: decoder\.head\.0\.weight.*tried.*'state_dict'.*without 'module\.'"):
        fb.load_model("smfnet", file, **OPTIONS)
    with pytest.raises(ValueError, match=r"no network that is known; nearest is 'smfnet'"):
        fb.load_model(file)
    torch.save({"epoch": 3}, file)
    with pytest.raises(ValueError, match="its entries are epoch"):
        fb.load_model("smfnet", file, **OPTIONS)
    with pytest.raises(FileNotFoundError, match="no file"):
        fb.load_model(tmp_path / "nowhere.pth")
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        fb.load_model(tmp_path)
    with pytest.raises(ValueError, match="did you mean 'smfnet'"):
        fb.load_model("smfnt", file)
    with pytest.raises(TypeError, match="checkpoint must be a path or a dict, got int"):
        fb.load_model("smfnet", 3)


def test_code_in_a_file_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pth")
    with pytest.raises(ValueError, match="code in it"):
        fb.load_model("smfnet", tmp_path / "whole.pth")
