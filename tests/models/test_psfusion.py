from __future__ import annotations

import copy
import os

import numpy as np
import pytest
import torch

import fusionblocks as fb
from fusionblocks.image import luma
from fusionblocks.models.psfusion import checkpoint as psfusion
from tests.helpers.golden import FORWARD, assert_close, load_case
from tests.helpers.model_tester import ModelTester

SMALL = {
    "backbone": "resnet10t",
    "backbone_channels": (8, 8, 12, 16),
    "semantic_channels": 8,
    "scene_channels": 8,
    "injection_channels": 4,
    "num_classes": 3,
}
NARROW = {**SMALL, "backbone": "resnet18", "backbone_channels": (64, 8, 12, 16)}
"""As the published trunk: the first stage has the stem's width, so that no convolution leads into it."""


class TestPSFusion(ModelTester):
    name = "psfusion"
    small = SMALL

    def test_extras_have_the_size_of_the_pair(self) -> None:
        output = self.run(self.make(), **self.inputs(2, 37, 50))
        sizes = {name: tuple(getattr(output, name).shape) for name in ("segmentation", "binary", "boundary")}
        assert sizes == {"segmentation": (2, 3, 37, 50), "binary": (2, 2, 37, 50), "boundary": (2, 2, 37, 50)}
        for picture in (output.fused, output.visible, output.infrared):
            assert picture.shape == (2, 1, 37, 50)
            assert picture.min() >= 0
            assert picture.max() <= 1

    @pytest.mark.parametrize("size", [(1, 1), (1, 40), (5, 3)])
    def test_takes_the_smallest_pictures(self, size) -> None:
        output = self.run(self.make(), **self.inputs(1, *size))
        assert output.fused.shape == (1, 1, *size)
        assert torch.isfinite(output.fused).all()

    def test_multiples_of_32_are_not_padded(self) -> None:
        model, inputs = self.make(), self.inputs(1, 32, 64)
        seen = []
        model.visible_encoder.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
        self.run(model, **inputs)
        assert torch.equal(seen[0], inputs["visible"])


def test_takes_bottleneck_trunks() -> None:
    model = fb.create_model("psfusion", **{**SMALL, "backbone": "resnet26d", "backbone_channels": (4, 4, 4, 4)}).eval()
    assert model.visible_encoder.channels == [32, 64, 16, 16, 16, 16]
    with torch.no_grad():
        assert model(torch.rand(1, 1, 33, 20), torch.rand(1, 3, 33, 20)).segmentation.shape == (1, 3, 33, 20)


def test_has_no_first_convolution_and_no_classifier() -> None:
    model = fb.create_model("psfusion", **SMALL)
    assert [name for name, _ in model.visible_encoder.named_children()] == ["stem", "norm", "act", "maxpool", "stages"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "resnet43"}, r"backbone must be a ResNet of timm, got 'resnet43' \(did you mean 'resnet"),
        ({"backbone": "convnext_tiny"}, "backbone must be a ResNet of timm, got 'convnext_tiny'"),
        ({"backbone_channels": (8, 8)}, r"backbone_channels must be four widths, got \(8, 8\)"),
        ({"backbone_channels": (8, 8, 0, 8)}, r"backbone_channels\[2\] must be a positive integer, got 0"),
        ({"semantic_channels": 6}, "must be a multiple of reduction=4, got 6"),
        ({"num_classes": 0}, "num_classes must be a positive integer, got 0"),
    ],
)
def test_refuses_wrong_options(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        fb.create_model("psfusion", **{**SMALL, **options})


@pytest.fixture(scope="module")
def published():
    return load_case("psf_full")


@pytest.fixture(scope="module")
def loaded(published):
    return fb.load_official("psfusion", {"MTAN": published.state})


def test_equals_the_published_network(published, loaded) -> None:
    assert not loaded.training
    with torch.no_grad():
        output = loaded(**published.inputs)
    for name, expected in published.outputs.items():
        assert_close(getattr(output, name), expected, name, **FORWARD)


def test_fuses_at_native_size_in_the_visible_colours(published, loaded) -> None:
    infrared, visible = (published.inputs[name][..., :37, :50] for name in ("infrared", "visible"))
    with torch.no_grad():
        output = loaded(infrared=infrared, visible=visible)
        picture = fb.fuse(infrared, visible, model=loaded)
    torch.testing.assert_close(luma(picture), output.fused, rtol=0, atol=1e-5)


def test_every_published_weight_arrives_or_is_listed_as_unused(published, loaded) -> None:
    converted = psfusion.convert(published.state)
    assert converted.keys() == loaded.state_dict().keys()
    dropped = {key for key in published.state if not psfusion.convert({key: published.state[key]})}
    assert {key.rpartition(".")[0].removeprefix("classfier.") for key in dropped} == {
        "boundary_conv1.conv",
        "boundary_conv1.bnop",
        "boundary_conv2",
    }
    assert len(converted) == len(published.state) - len(dropped)


@pytest.fixture(scope="module")
def small_published():
    """A published-layout state of a narrow network, and our state it must become."""
    ours = fb.create_model("psfusion", **NARROW).state_dict()
    names = {new: old for old in load_case("psf_full").state for new in psfusion.convert({old: torch.zeros(1)})}
    narrow = {names[key]: value for key, value in ours.items() if key in names}
    # a ResNet-18 has a subset of the layers of the published ResNet-34
    assert len(narrow) == len(ours)
    narrow["classfier.boundary_conv2.bias"] = torch.zeros(2)
    return narrow, ours


def test_loads_the_authors_layouts(small_published, tmp_path) -> None:
    narrow, ours = small_published
    checkpoint = {
        "MTAN": narrow,
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": [{"lr": 0.001}]},
        "ep": 2999,
        "total_it": 100000,
    }
    torch.save(checkpoint, tmp_path / "best_model.pth")
    parallel = {**checkpoint, "MTAN": {f"module.{key}": value for key, value in narrow.items()}}
    for source in (checkpoint, parallel, tmp_path / "best_model.pth", str(tmp_path / "best_model.pth")):
        model = fb.load_official("psfusion", source, **NARROW)
        assert not model.training
        assert all(torch.equal(value, ours[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("score", [np.array(0.7438), np.float64(0.7438)])
def test_reads_the_score_that_the_authors_file_holds(small_published, tmp_path, score) -> None:
    narrow, ours = small_published
    torch.save({"MTAN": narrow, "ep": 2999, "best_mIou": score}, tmp_path / "best_model.pth")
    model = fb.load_official("psfusion", tmp_path / "best_model.pth", **NARROW)
    assert all(torch.equal(value, ours[key]) for key, value in model.state_dict().items())


class Malicious:
    def __reduce__(self):
        return os.mkdir, (os.environ["FUSIONBLOCKS_TEST_MARK"],)


def test_code_in_a_checkpoint_never_runs(small_published, tmp_path, monkeypatch) -> None:
    mark = tmp_path / "ran"
    monkeypatch.setenv("FUSIONBLOCKS_TEST_MARK", str(mark))
    for score in (Malicious(), np.array([Malicious()], dtype=object)):
        torch.save({"MTAN": small_published[0], "best_mIou": score}, tmp_path / "best_model.pth")
        with pytest.raises(ValueError, match="code in it and was refused"):
            fb.load_official("psfusion", tmp_path / "best_model.pth", **NARROW)
        assert not mark.exists()


def test_missing_surplus_and_misshapen_keys_are_named(small_published) -> None:
    narrow, _ = small_published

    def load(state) -> None:
        fb.load_official("psfusion", {"MTAN": state}, **NARROW)

    with pytest.raises(ValueError, match=r"1 missing: fused_head\.conv\.bias"):
        load({key: value for key, value in narrow.items() if key != "pred_fusion.conv_block.0.bias"})
    with pytest.raises(ValueError, match=r"1 surplus: third_head\.bias"):
        load({**narrow, "third_head.bias": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"1 of another shape: fused_head\.conv\.bias: expected \(1,\), got \(2,\)"):
        load({**narrow, "pred_fusion.conv_block.0.bias": torch.zeros(2)})
    with pytest.raises(ValueError, match="of another shape: "):
        fb.load_official("psfusion", {"MTAN": narrow}, **{**NARROW, "num_classes": 4})


def test_another_networks_checkpoint_is_refused(small_published) -> None:
    narrow, _ = small_published
    with pytest.raises(ValueError, match="not a checkpoint of 'psfusion': it looks like one of 'sgafusion'"):
        fb.load_official("psfusion", copy.copy(load_case("sga_full").state), **NARROW)
    with pytest.raises(ValueError, match="not a checkpoint of 'psfusion'"):
        fb.load_official("psfusion", narrow, **NARROW)  # the bare state dict is not the authors' layout
    with pytest.raises(ValueError, match="looks like one of 'psfusion'"):
        fb.load_official("sgafusion", {"MTAN": narrow})
    with pytest.raises(ValueError, match="not a checkpoint of 'psfusion'"):
        fb.load_official("psfusion", {"MTAN": {}}, **NARROW)
