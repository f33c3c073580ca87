from __future__ import annotations

import contextlib
import json
import logging
import pickle
import zipfile

import pytest
import torch
from torch import nn

from fusionblocks.guidance import CLIPDegradationClassifier
from fusionblocks.guidance.clip import loading
from fusionblocks.guidance.clip.torchscript import read_torchscript
from tests.guidance.towers import tiny_clip, tiny_tower

MODEL = "ViT-B-32-quickgelu"


@pytest.fixture
def small_models(monkeypatch):
    """Let open_clip build the small model under every name; reading and checking files is the real thing."""
    import open_clip

    def create(name):
        logging.warning("random weights")
        model = tiny_clip(7)
        model.visual.preprocess_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "size": 32}
        return model

    monkeypatch.setattr(open_clip, "create_model", create)


class Unreachable:
    """Stands for the hub's session and urllib, without a network."""

    def head(self, *_, **__):
        raise OSError("network is unreachable")

    urlopen = head


@pytest.fixture
def no_network(monkeypatch):
    import huggingface_hub.utils
    import open_clip.pretrained

    monkeypatch.setattr(huggingface_hub.utils, "get_session", Unreachable)
    monkeypatch.setattr(open_clip.pretrained.urllib.request, "urlopen", Unreachable().urlopen)


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_the_hub_s_cache_is_asked_before_the_network(tmp_path, monkeypatch, no_network, small_models, name):
    from huggingface_hub import constants
    from safetensors.torch import save_file

    repository = tmp_path / "models--timm--vit_base_patch32_clip_224.openai"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    state = tiny_clip(1).state_dict()
    (save_file if name.endswith("safetensors") else torch.save)(state, snapshot / name)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert same(loading.load_clip(MODEL, "openai"), state)
    assert same(loading.load_clip(MODEL, "hf-hub:timm/vit_base_patch32_clip_224.openai"), state)


def same(model, state):
    own = model.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[key], state[key]) for key in own)


@pytest.mark.parametrize("form", ["safetensors", "plain", "training run", "OpenAI"])
def test_a_local_file_is_loaded_whole(tmp_path, small_models, form, caplog):
    from safetensors.torch import save_file

    state = tiny_clip(1).state_dict()
    file = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pt")
    if form == "safetensors":
        save_file(state, file)
    elif form == "training run":
        torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}, file)
    elif form == "OpenAI":
        numbers = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}
        torch.save({**state, **{key: torch.tensor(value) for key, value in numbers.items()}}, file)
    else:
        torch.save(state, file)
    assert same(loading.load_clip(MODEL, file), state)
    assert not caplog.records
    classifier = CLIPDegradationClassifier(pretrained=str(file))
    assert torch.equal(classifier.visual.proj, state["visual.proj"])
    assert torch.equal(classifier.text.text_projection, state["text_projection"])


def test_files_that_do_not_fit_are_refused_by_key(tmp_path, small_models):
    state = tiny_clip().state_dict()
    cases = {
        "lacking.pt": ({key: value for key, value in state.items() if key != "visual.proj"}, "1 missing: visual.proj"),
        "tower.pt": (tiny_tower().state_dict(), "missing: .*visual.proj.*surplus: .*class_embedding"),
        "wide.pt": (
            {**state, "visual.proj": torch.zeros(16, 25)},
            r"visual\.proj: expected \(16, 24\), got \(16, 25\)",
        ),
        "list.pt": ([1, 2], "no state dict"),
    }
    for name, (content, message) in cases.items():
        torch.save(content, tmp_path / name)
        with pytest.raises(ValueError, match=message) as error:
            CLIPDegradationClassifier(pretrained=tmp_path / name)
        assert name in str(error.value)


class Holder(nn.Module):
    """A program with the names of a CLIP model's weights, in half precision, and OpenAI's numbers."""

    def __init__(self, model):
        super().__init__()
        for name, value in model.half().state_dict().items():
            *owners, leaf = name.split(".")
            owner = self
            for part in owners:
                if part not in owner._modules:
                    owner.add_module(part, nn.Module())
                owner = owner._modules[part]
            owner.register_parameter(leaf, nn.Parameter(value))
        for name, number in {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}.items():
            self.register_buffer(name, torch.tensor(number))

    def forward(self, x):
        return x + self.logit_scale


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_openai_s_archive_is_read_as_data(tmp_path, small_models, monkeypatch):
    file = tmp_path / "ViT-B-32.pt"
    torch.jit.script(Holder(tiny_clip(1))).save(file)
    state = torch.jit.load(file).state_dict()
    assert len(state) == len(tiny_clip().state_dict()) + 3

    def forbidden(*_, **__):
        raise AssertionError("the program was loaded")

    monkeypatch.setattr(torch.jit, "load", forbidden)
    found = read_torchscript(file)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in state.items())
    model = loading.load_clip(MODEL, file)
    assert all(torch.equal(value, state[name].float()) for name, value in model.state_dict().items())
    with pytest.raises(ValueError, match="OpenAI.*'ViT-B-32-quickgelu'"):
        loading.load_clip("ViT-B-32", file)


class Evil:
    def __reduce__(self):
        return print, ("ran",)


@pytest.mark.parametrize("content", [{"x": Evil()}, b"cut off"])
def test_an_archive_with_anything_else_in_it_is_refused(tmp_path, content, capsys):
    file = tmp_path / "evil.pt"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("evil/constants.pkl", pickle.dumps(()))
        archive.writestr("evil/data.pkl", content if isinstance(content, bytes) else pickle.dumps(content, protocol=2))
    with pytest.raises(
        ValueError, match=r"nothing of it ran: it asks for .*print|nothing of it ran: pickle data was truncated"
    ):
        CLIPDegradationClassifier(pretrained=file)
    assert capsys.readouterr().out == ""


def test_weights_of_the_other_gelu_are_refused(tmp_path, small_models, no_network):
    """Both forms have the same keys, so nothing else would tell."""
    with pytest.raises(ValueError, match=r"trained with QuickGELU, 'ViT-B-32' computes GELU.*'ViT-B-32-quickgelu'"):
        loading.load_clip("ViT-B-32", "laion400m_e32")
    state = tiny_clip().state_dict()
    torch.save({**state, "input_resolution": torch.tensor(224)}, tmp_path / "openai.pt")
    with pytest.raises(ValueError, match="OpenAI.*'ViT-B-32-quickgelu'"):
        loading.load_clip("ViT-B-32", tmp_path / "openai.pt")
    torch.save(state, tmp_path / "hub.pt")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"embed_dim": 512}, "preprocess_cfg": {}}))
    with pytest.raises(ValueError, match="trained with GELU.*model_name='ViT-B-32'"):
        loading.load_clip(MODEL, tmp_path / "hub.pt")
    assert same(loading.load_clip("ViT-B-32", tmp_path / "hub.pt"), state)


def test_every_model_of_open_clip_has_a_form_for_its_weights():
    """A tag is refused by one form of a model at most: the other takes it."""
    import open_clip

    known = open_clip.list_pretrained()
    for model, tag in known:
        settings = open_clip.get_pretrained_cfg(model, tag)
        forms = {model, f"{model}-quickgelu", model.removesuffix("-quickgelu")} & set(open_clip.list_models())
        fitting = []
        for form in forms:
            with contextlib.suppress(ValueError):
                loading._check_activation(form, bool(settings.get("quick_gelu")), source=tag)
                fitting.append(form)
        assert fitting, (model, tag)
    assert len(known) > 100


def test_a_configuration_beside_the_file_sets_the_normalisation(tmp_path, small_models):
    torch.save(tiny_clip().state_dict(), tmp_path / "weights.pt")
    config = {"model_cfg": {"quick_gelu": True}, "preprocess_cfg": {"mean": [0.1, 0.2, 0.3]}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    classifier = CLIPDegradationClassifier(pretrained=tmp_path / "weights.pt")
    assert classifier._view["config"]["mean"] == [0.1, 0.2, 0.3]
    assert classifier._view["config"]["std"] == (0.5,) * 3


@pytest.mark.parametrize(
    ("model", "pretrained", "places"),
    [
        (MODEL, "openai", ["timm/vit_base_patch32_clip_224.openai", "ViT-B-32.pt"]),
        ("ViT-B-32", "laion2b_s34b_b79k", ["https://huggingface.co/laion/CLIP-ViT-B-32-laion2B-s34B-b79K"]),
        (MODEL, "hf-hub:someone/some-clip", ["https://huggingface.co/someone/some-clip"]),
        ("hf-hub:someone/some-clip", "openai", ["https://huggingface.co/someone/some-clip"]),
    ],
)
def test_without_a_network_the_error_says_what_to_bring(no_network, model, pretrained, places, monkeypatch):
    import open_clip.factory

    monkeypatch.setattr(open_clip.factory, "_get_hf_config", Unreachable().head)
    with pytest.raises(FileNotFoundError) as error:
        CLIPDegradationClassifier(model, pretrained)
    message = str(error.value)
    for part in (model, *places, "pretrained='/path/to/the/file'", "network is unreachable"):
        assert part in message


@pytest.mark.parametrize(
    ("model", "pretrained", "error", "message"),
    [
        (MODEL, "weights.pt", FileNotFoundError, r"weights\.pt, which does not exist.*local file of ViT-B-32.*openai"),
        (MODEL, "no/such/file", FileNotFoundError, "no/such/file"),
        (MODEL, "openia", ValueError, "not a tag of 'ViT-B-32-quickgelu'; did you mean 'openai'"),
        ("ViT-B32", None, ValueError, "unknown model_name 'ViT-B32'; did you mean 'ViT-B-32'"),
    ],
)
def test_names_that_do_not_exist_are_refused(model, pretrained, error, message):
    with pytest.raises(error, match=message):
        CLIPDegradationClassifier(model, pretrained)
