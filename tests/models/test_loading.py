"""Reading checkpoints safely, loading them strictly, and finding networks by name."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import fusionblocks as fb
from fusionblocks._loading import load_strict, read_checkpoint
from fusionblocks.models import official
from fusionblocks.models.base import build_config
from fusionblocks.models.published import convert_keys, is_state, is_unused, rename
from fusionblocks.models.sgafusion.network import SGAFusionConfig

SMALL = {"channels": 4, "semantic_channels": 8}


class Payload:
    """A pickle of this touches a file when it is loaded without care."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def write_pickle(content: object, file: Path, protocol: int) -> None:
    with file.open("wb") as stream:
        pickle.dump(content, stream, protocol=protocol)


class TestReadCheckpoint:
    def test_tensors_and_plain_containers_are_read(self, tmp_path):
        content = {"state": {"a.weight": torch.rand(2, 3)}, "epoch": 7, "note": "x"}
        for new in (True, False):
            torch.save(content, tmp_path / "c.pth", _use_new_zipfile_serialization=new)
            read = read_checkpoint(tmp_path / "c.pth")
            assert torch.equal(read["state"]["a.weight"], content["state"]["a.weight"])
            assert (read["epoch"], read["note"]) == (7, "x")
        save_file(content["state"], tmp_path / "c.safetensors")
        read = read_checkpoint(str(tmp_path / "c.safetensors"))
        assert torch.equal(read["a.weight"], content["state"]["a.weight"])

    @pytest.mark.parametrize("way", ["zip", "legacy", 0, 1, 2, 3, 4, 5])
    def test_code_is_refused_and_does_not_run(self, tmp_path, way):
        file, marker = tmp_path / "evil.pth", tmp_path / "touched"
        content = {"weights": torch.ones(2) if isinstance(way, str) else 1, "payload": Payload(marker)}
        if isinstance(way, str):
            torch.save(content, file, _use_new_zipfile_serialization=way == "zip")
        else:
            write_pickle(content, file, way)
        with pytest.raises(ValueError, match=r"code in it and was refused, nothing of it ran .*state_dict") as caught:
            read_checkpoint(file)
        assert not marker.exists()
        assert str(file) in str(caught.value)
        assert "weights_only" not in str(caught.value), "the message must not advise to load the file unsafely"
        # the trap is real: an unguarded reader runs it
        if isinstance(way, str):
            torch.load(file, weights_only=False)
        else:
            pickle.loads(file.read_bytes())
        assert marker.exists()

    def test_system_calls_and_whole_models_are_named(self, tmp_path):
        class System:
            def __reduce__(self):
                return os.system, (f"touch {tmp_path / 'touched'}",)

        torch.save(System(), tmp_path / "system.pth")
        with pytest.raises(ValueError, match=r"\(\w+\.system\)"):
            read_checkpoint(tmp_path / "system.pth")
        assert not (tmp_path / "touched").exists()
        torch.save(nn.Linear(2, 2), tmp_path / "model.pth")
        with pytest.raises(ValueError, match=r"torch\.nn\.modules\.linear\.Linear"):
            read_checkpoint(tmp_path / "model.pth")

    def test_a_torchscript_program_is_refused(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
            archive.writestr("script/constants.pkl", b"\x80\x02].")
            archive.writestr("script/version", b"3\n")
            archive.writestr("script/code/__torch__.py", b"")
            archive.writestr("script/data.pkl", b"\x80\x02}.")
        with pytest.raises(ValueError, match="TorchScript"):
            read_checkpoint(tmp_path / "script.pt")

    @pytest.mark.parametrize("new", [True, False])
    def test_truncated_files_are_damaged(self, tmp_path, new):
        file = tmp_path / "cut.pth"
        torch.save({"a": torch.rand(300), "b": torch.rand(5)}, file, _use_new_zipfile_serialization=new)
        whole = file.read_bytes()
        for length in [*range(0, 200, 7), len(whole) // 2, len(whole) - 30]:
            file.write_bytes(whole[:length])
            with pytest.raises(ValueError, match=r"cut\.pth is damaged or no checkpoint"):
                read_checkpoint(file)

    def test_truncated_safetensors_are_damaged(self, tmp_path):
        file = tmp_path / "cut.safetensors"
        save_file({"a": torch.rand(300)}, file)
        whole = file.read_bytes()
        for length in (0, 5, 40, len(whole) - 1):
            file.write_bytes(whole[:length])
            with pytest.raises(ValueError, match="damaged"):
                read_checkpoint(file)

    @pytest.mark.parametrize(
        "content",
        [
            b"hello, no checkpoint",
            b"<!DOCTYPE html><html></html>",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
            b"\x89PNG\r\n\x1a\n",
            *(np.random.RandomState(seed).bytes(200) for seed in range(40)),
        ],
    )
    def test_other_files_are_no_checkpoints(self, tmp_path, content):
        (tmp_path / "other.pth").write_bytes(content)
        with pytest.raises(ValueError, match=r"other\.pth is damaged or no checkpoint"):
            read_checkpoint(tmp_path / "other.pth")

    def test_other_archives_are_no_checkpoints(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "other.pth", "w") as archive:
            archive.writestr("readme.txt", "hello")
        with pytest.raises(ValueError, match="damaged or no checkpoint"):
            read_checkpoint(tmp_path / "other.pth")

    def test_missing_files_and_folders(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"none\.pth does not exist"):
            read_checkpoint(tmp_path / "none.pth")
        with pytest.raises(FileNotFoundError, match="is a folder"):
            read_checkpoint(tmp_path)


class TestLoadStrict:
    def test_every_problem_is_named_and_nothing_changes(self):
        model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        before = {key: value.clone() for key, value in model.state_dict().items()}
        state = {key: torch.zeros_like(value) for key, value in before.items()}
        del state["1.running_var"]
        state["0.weight"] = torch.zeros(3, 5)
        state["2.gain"] = torch.zeros(1)
        with pytest.raises(ValueError, match="does not fit") as caught:
            load_strict(model, state, source="x.pth")
        for part in (
            "x.pth does not fit Sequential",
            "1 missing: 1.running_var",
            "1 surplus: 2.gain",
            "1 of another shape: 0.weight: expected (3, 2), got (3, 5)",
        ):
            assert part in str(caught.value)
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())

    def test_long_lists_are_cut(self):
        with pytest.raises(ValueError, match=r"20 surplus: k0, .*k7, and 12 more"):
            load_strict(nn.Identity(), {f"k{i}": torch.ones(1) for i in range(20)}, source="x")

    def test_values_arrive(self):
        model = nn.Linear(2, 2)
        state = {"weight": torch.rand(2, 2), "bias": torch.rand(2)}
        load_strict(model, state, source="x")
        assert torch.equal(model.weight, state["weight"])
        assert model.weight.data_ptr() != state["weight"].data_ptr()


class TestRegistry:
    def test_unknown_names_list_the_known_and_offer_the_closest(self):
        for function in (fb.create_model, fb.models.model_class, lambda name: fb.load_official(name, {})):
            for wrong, right in (("psfusoin", "psfusion"), ("SMFNet", "smfnet"), ("sga-fusion", "sgafusion")):
                with pytest.raises(ValueError, match=f"{wrong}.*did you mean '{right}'") as caught:
                    function(wrong)
                assert all(name in str(caught.value) for name in fb.list_models())
            with pytest.raises(ValueError, match="unknown model 'qqqq'; known: "):
                function("qqqq")
            for wrong in (None, ["smfnet"], 3):
                with pytest.raises(TypeError, match="name must be"):
                    function(wrong)

    def test_unknown_options_offer_the_closest(self):
        with pytest.raises(TypeError, match=r"unknown SGAFusionConfig keyword 'chanels' \(did you mean 'channels'\?\)"):
            fb.create_model("sgafusion", chanels=4)
        with pytest.raises(TypeError, match="chanels"):
            fb.load_official("sgafusion", {}, chanels=4)

    def test_config_objects_are_taken(self):
        config = SGAFusionConfig(**SMALL)
        assert fb.create_model("sgafusion", config=config).config == config
        assert fb.SGAFusion(config, num_classes=3).config.num_classes == 3
        with pytest.raises(TypeError, match="config must be a SGAFusionConfig, got dict"):
            fb.SGAFusion(SMALL)

    def test_lists_become_tuples(self):
        class Config(SGAFusionConfig):
            pass

        assert build_config(Config, None, {"query": ["a", "b"]}).query == ("a", "b")


def published_layouts() -> dict[str, dict[str, object]]:
    """One tensor under each published key, arranged as each network's authors save it."""
    cases = json.loads((Path(__file__).parents[1] / "golden" / "manifest.json").read_text())["cases"]
    smfnet: dict[str, dict[str, torch.Tensor]] = {}
    for key in cases["smf_full"]["state"]:
        entry, _, rest = key.partition(".")
        smfnet.setdefault(entry, {})[f"module.{rest}"] = torch.zeros(1)
    flat = {
        case: {key: torch.zeros(1) for key in cases[case]["state"]}
        for case in ("psf_full", "sga_full", "sgd_unet_full")
    }
    return {
        "smfnet": smfnet,
        "psfusion": {"MTAN": flat["psf_full"], "epoch": 3},
        "sgafusion": flat["sga_full"],
        "sgdfuse": {f"denoise_fn.{key}": value for key, value in flat["sgd_unet_full"].items()},
    }


LAYOUTS = [name for name in fb.list_models() if official.layout_of(name) is not None]


class TestOfficial:
    @pytest.mark.parametrize("own", LAYOUTS)
    def test_each_layout_claims_its_own_checkpoint_alone(self, own):
        layout = official.layout_of(own)
        for name, checkpoint in published_layouts().items():
            assert (layout.unwrap(checkpoint) is not None) == (name == own), name
        for other in ({}, {"a": torch.ones(1)}, {0: torch.ones(1)}, {"model": None}):
            assert layout.unwrap(other) is None

    @pytest.mark.parametrize("name", LAYOUTS)
    def test_the_network_of_another_checkpoint_is_named(self, name, monkeypatch):
        monkeypatch.setattr(official, "model_class", lambda name: nn.Identity)
        for other, checkpoint in published_layouts().items():
            if other != name and other in LAYOUTS:
                with pytest.raises(ValueError, match=f"not a checkpoint of '{name}': it looks like one of '{other}'"):
                    fb.load_official(name, checkpoint)

    def test_something_else_is_described(self, tmp_path):
        with pytest.raises(ValueError, match=r"not a checkpoint of 'sgafusion': its entries are epoch, model"):
            fb.load_official("sgafusion", {"epoch": 1, "model": None}, **SMALL)
        torch.save([torch.ones(1)], tmp_path / "list.pth")
        with pytest.raises(ValueError, match=r"list\.pth is not a checkpoint of 'sgafusion': it holds a list"):
            fb.load_official("sgafusion", tmp_path / "list.pth", **SMALL)
        with pytest.raises(FileNotFoundError, match=r"none\.pth"):
            fb.load_official("sgafusion", tmp_path / "none.pth", **SMALL)

    @pytest.mark.parametrize("wrong", [None, 3, [torch.ones(1)], b"file.pth"])
    def test_wrong_types_are_refused(self, wrong):
        with pytest.raises(TypeError, match="checkpoint must be a path or a dict, got"):
            fb.load_official("sgafusion", wrong, **SMALL)

    def test_a_network_without_a_checkpoint_says_so(self):
        with pytest.raises(ValueError, match="'laplacian' has no published checkpoint"):
            fb.load_official("laplacian", {})

    def test_a_broken_layout_module_is_not_mistaken_for_none(self, monkeypatch):
        def broken(module):
            raise ModuleNotFoundError("No module named 'numpie'", name="numpie")

        monkeypatch.setattr(official.importlib, "import_module", broken)
        with pytest.raises(ModuleNotFoundError, match="numpie"):
            official.layout_of("sgafusion")


class TestKeyTables:
    def test_patterns_start_at_a_dotted_segment(self):
        renames = [(r"attn\.", "attention."), (r"layer(\d)\.", r"layers.\1.")]
        assert rename("attn.weight", renames) == "attention.weight"
        assert rename("block.attn.weight", renames) == "block.attention.weight"
        assert rename("crossattn.weight", renames) == "crossattn.weight"
        assert rename("net.layer3.attn.bias", renames) == "net.layers.3.attention.bias"

    def test_unused_keys_are_dropped_and_collisions_refused(self):
        one = torch.ones(1)
        assert is_unused("old.bias", {r"old\.": "never called"})
        assert not is_unused("very.old.bias", {r"old\.": "never called"})
        assert convert_keys({"a.x": one, "old.x": one}, [(r"a\.", "b.")], {r"old\.": "never called"}) == {"b.x": one}
        with pytest.raises(ValueError, match=r"'b\.x'.*'b\.x'"):
            convert_keys({"a.x": one, "b.x": one}, [(r"a\.", "b.")], {})

    def test_what_a_state_dict_is(self):
        assert is_state({"a": torch.ones(1)})
        for other in ({}, [torch.ones(1)], {"a": 1}, {0: torch.ones(1)}, None):
            assert not is_state(other)


class TestFromPretrained:
    @pytest.fixture
    def folder(self, tmp_path):
        torch.manual_seed(0)
        fb.SGAFusion(**SMALL).save_pretrained(tmp_path)
        return tmp_path

    def test_truncated_weights_are_refused(self, folder):
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
            fb.SGAFusion.from_pretrained(folder)

    def test_missing_parts_are_named(self, folder):
        (folder / "model.safetensors").unlink()
        with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
            fb.SGAFusion.from_pretrained(folder)
        (folder / "config.json").unlink()
        with pytest.raises(ValueError, match=r"no config\.json"):
            fb.SGAFusion.from_pretrained(folder)

    def test_loading_stays_strict(self, folder):
        with pytest.raises(ValueError, match="strict=False"):
            fb.SGAFusion.from_pretrained(folder, strict=False)

    def test_options_override_the_saved_configuration(self, folder):
        assert fb.SGAFusion.from_pretrained(folder, query="semantic").config.query == "semantic"
        with pytest.raises(ValueError, match=r"segmentation_head\.weight: expected \(5, 16, 1, 1\), got \(9, 16"):
            fb.SGAFusion.from_pretrained(folder, num_classes=5)
        with pytest.raises(TypeError, match="did you mean 'query'"):
            fb.SGAFusion.from_pretrained(folder, querry="semantic")

    def test_unknown_saved_options_are_refused(self, folder):
        config = json.loads((folder / "config.json").read_text())
        assert config["model"] == "sgafusion"
        (folder / "config.json").write_text(json.dumps({**config, "depth": 3}))
        with pytest.raises(TypeError, match="depth"):
            fb.SGAFusion.from_pretrained(folder)

    def test_the_folder_of_another_network_is_refused(self, tmp_path):
        fb.create_model("laplacian").save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="holds a 'laplacian' network, not 'sgafusion'"):
            fb.SGAFusion.from_pretrained(tmp_path)


def test_output_map_keeps_what_is_missing():
    output = fb.models.SMFNetOutput(fused=torch.ones(1, 1, 2, 2), features={"a": torch.ones(1)})
    doubled = output.map(lambda tensor: 2 * tensor)
    assert type(doubled) is type(output)
    assert torch.equal(doubled.fused, 2 * output.fused)
    assert torch.equal(doubled.features["a"], torch.full((1,), 2.0))
    assert doubled.segmentation is None
    assert torch.equal(output.fused, torch.ones(1, 1, 2, 2))
