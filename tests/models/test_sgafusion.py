from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import fusionblocks as fb
from fusionblocks._loading import load_strict
from fusionblocks.models.sgafusion import checkpoint as sgafusion
from fusionblocks.models.sgafusion.network import DegradationAwareEncoder
from tests.helpers.golden import FORWARD, assert_close, load_case
from tests.helpers.model_tester import ModelTester

SMALL = {"channels": 4, "semantic_channels": 8}


class TestSGAFusion(ModelTester):
    name = "sgafusion"
    small = SMALL

    def guidance(self, batch, height, width):
        return {"semantic": torch.randn(batch, 8)}


class TestSGAFusionAsDrawn(TestSGAFusion):
    small = {"channels": 4, "semantic_channels": 8, "query": "semantic", "num_experts": 3, "num_classes": 2}


@pytest.fixture(scope="module")
def published():
    return load_case("sga_full")


def test_equals_the_published_network(published):
    model = fb.load_official("sgafusion", published.state)
    inputs = published.inputs
    assert torch.equal(inputs["infrared"][:, :1].expand(-1, 3, -1, -1), inputs["infrared"])
    with torch.no_grad():
        output = model(inputs["infrared"][:, :1], inputs["visible"], semantic=inputs["semantic"])
    for name, expected in published.outputs.items():
        assert_close(getattr(output, name), expected, name, **FORWARD)


@pytest.mark.parametrize("modality", ["visible", "infrared"])
def test_encoder_equals_the_published_encoder(modality):
    case = load_case(f"sga_encoder_{modality}")
    encoder = DegradationAwareEncoder()
    load_strict(encoder, sgafusion.convert(case.state), source="the golden case")
    with torch.no_grad():
        stages = encoder(case.inputs["x"], degraded=modality == "visible")
    assert len(stages) == len(case.outputs) == 4
    for i, stage in enumerate(stages, start=1):
        assert_close(stage, case.outputs[f"stage{i}"], f"stage {i}", **FORWARD)


def test_loads_the_authors_layouts(published, tmp_path):
    parallel = {f"module.{key}": value for key, value in published.state.items()}
    torch.save(parallel, tmp_path / "model_19_finetune.pth")
    expected = fb.load_official("sgafusion", published.state).state_dict()
    for checkpoint in (parallel, tmp_path / "model_19_finetune.pth", str(tmp_path / "model_19_finetune.pth")):
        model = fb.load_official("sgafusion", checkpoint)
        assert not model.training
        assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())


def test_every_published_weight_arrives_once(published):
    converted = sgafusion.convert(published.state)
    assert sum(value.numel() for value in converted.values()) == sum(v.numel() for v in published.state.values())


def test_missing_surplus_and_misshapen_keys_are_named(published):
    state = dict(published.state)
    head = state.pop("seg_head.bias")
    with pytest.raises(ValueError, match=r"missing: segmentation_head\.bias"):
        fb.load_official("sgafusion", state)
    with pytest.raises(ValueError, match=r"surplus: third_head\.bias"):
        fb.load_official("sgafusion", {**published.state, "third_head.bias": head})
    with pytest.raises(ValueError, match=r"segmentation_head\.bias: expected \(5,\), got \(9,\)"):
        fb.load_official("sgafusion", published.state, num_classes=5)


def test_other_checkpoints_are_not_claimed(published):
    assert sgafusion.unwrap({}) is None
    assert sgafusion.unwrap({"resnet.conv1.weight": torch.ones(1)}) is None
    assert sgafusion.unwrap({"MTAN": published.state}) is None
    assert sgafusion.unwrap({"denoise_fn.final.weight": torch.ones(1)}) is None
    with pytest.raises(ValueError, match="not a checkpoint of 'sgafusion'"):
        fb.load_official("sgafusion", {"conv1.weight": torch.ones(1)})


class Classifier(nn.Module):
    """Stands for the authors' classifier, which they saved as a whole pickled model."""

    marker = None

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def __setstate__(self, state):
        Classifier.marker = "ran"
        super().__setstate__(state)


def test_a_pickled_whole_model_is_refused_and_not_run(tmp_path):
    file = tmp_path / "best_cls.pth"
    torch.save(Classifier(), file)
    Classifier.marker = None
    with pytest.raises(ValueError, match=r"refused.*state_dict"):
        fb.load_official("sgafusion", file)
    assert Classifier.marker is None
    # the trap is real: an unguarded reader runs it
    torch.load(file, weights_only=False)
    assert Classifier.marker == "ran"


def test_semantic_is_required_and_checked():
    model = fb.create_model("sgafusion", **SMALL)
    pair = {"infrared": torch.rand(2, 1, 9, 7), "visible": torch.rand(2, 3, 9, 7)}
    with pytest.raises(ValueError, match=r"semantic.*\(B, 8\).*attach_guidance"):
        model(**pair)
    for semantic in (torch.rand(2, 7), torch.rand(1, 8), torch.rand(8), torch.rand(2, 1, 1, 8)):
        with pytest.raises(ValueError, match="semantic"):
            model(**pair, semantic=semantic)
    for semantic in ([0.5] * 8, torch.ones(2, 8, dtype=torch.int64)):
        with pytest.raises(TypeError, match="semantic"):
            model(**pair, semantic=semantic)


def test_an_attached_guide_is_asked_and_stays_outside():
    torch.manual_seed(0)
    model = fb.create_model("sgafusion", **SMALL).eval()
    pair = {"infrared": torch.rand(2, 1, 9, 7), "visible": torch.rand(2, 3, 9, 7)}
    guide = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 8))
    before = set(model.state_dict())
    model.attach_guidance(guide)
    assert set(model.state_dict()) == before
    assert len([*model.modules()]) == len([*fb.create_model("sgafusion", **SMALL).modules()])
    expected = model(**pair, semantic=guide(pair["visible"])).fused
    assert torch.equal(model(**pair).fused, expected)
    # an argument wins over the guide
    other = torch.randn(2, 8)
    model.attach_guidance(lambda visible: pytest.fail("the guide was asked"))
    model(**pair, semantic=other)
    model.attach_guidance(lambda visible: torch.rand(2, 5))
    with pytest.raises(ValueError, match="semantic"):
        model(**pair)
    model.attach_guidance(None)
    with pytest.raises(ValueError, match="attach_guidance"):
        model(**pair)
    with pytest.raises(TypeError, match="guide"):
        model.attach_guidance("clip")


@pytest.mark.parametrize("query", ["image", "semantic"])
def test_the_semantics_steer_the_picture(query):
    torch.manual_seed(0)
    model = fb.create_model("sgafusion", query=query, **SMALL).double()
    pair = {"infrared": torch.rand(1, 1, 9, 7).double(), "visible": torch.rand(1, 3, 9, 7).double()}
    one = torch.randn(1, 8, dtype=torch.float64, requires_grad=True)
    several = torch.randn(1, 5, 8, dtype=torch.float64, requires_grad=True)
    for semantic in (one, several):
        model(**pair, semantic=semantic).fused.std().backward()
        assert torch.count_nonzero(semantic.grad) == semantic.numel()


def test_the_degradation_experts_see_the_visible_picture_alone():
    torch.manual_seed(0)
    model = fb.create_model("sgafusion", **SMALL).eval()
    seen = []
    model.encoder.degradation.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    visible = torch.rand(1, 3, 9, 7)
    model(torch.rand(1, 1, 9, 7), visible, semantic=torch.randn(1, 8))
    assert len(seen) == 1
    assert torch.equal(seen[0], model.encoder.stem(visible))


def test_copies_and_pickles():
    model = fb.create_model("sgafusion", **SMALL)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.config == model.config
        assert all(torch.equal(a, b) for a, b in zip(twin.parameters(), model.parameters(), strict=True))


def test_wrong_configurations_are_refused_by_name():
    for options in ({"query": "text"}, {"num_heads": 3}, {"channels": 0}, {"num_experts": 0}, {"num_classes": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            fb.create_model("sgafusion", **options)
