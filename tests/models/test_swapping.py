from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import fusionblocks as fb
from fusionblocks.image import crop
from tests.helpers.networks import NARROW, pair, trained_like


class Mean(nn.Module):
    """A merge of one's own."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(in_channels, channels, 1)

    def forward(self, infrared, visible):
        return self.project((infrared + visible) / 2)


SWAPS = [
    ("fusionblocks", fb.TransformerBlock, lambda old: fb.ChannelAttention(old.channels, num_heads=4)),
    ("psfusion", fb.SDFM, lambda old: Mean(old.in_channels, old.channels)),
    ("psfusion", fb.PSFM, lambda old: fb.create_block("AdaptiveFusion", old.in_channels, old.channels)),
    ("psfusion", nn.ReLU, lambda old: nn.GELU()),
    ("sgafusion", fb.CLIPQueryAttention, lambda old: fb.SemanticInjection(old.channels, old.semantic_channels)),
    ("smfnet", fb.CAI, lambda old: fb.TransformerBlock(old.channels, num_heads=4)),
]


@pytest.mark.parametrize(("name", "old", "factory"), SWAPS)
def test_swap_fuses_trains_and_optimizes(name, old, factory) -> None:
    model = trained_like(name, **NARROW[name])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    inputs = pair(name, 37, 50)
    expected = model(**inputs).fused
    swapped = fb.swap(model, old, factory)
    assert not any(isinstance(module, old) for module in swapped.modules())
    assert torch.equal(model(**inputs).fused, expected), "the network itself is as it was"
    kept = [path for path, module in model.named_modules() if isinstance(module, old)]
    kept = [key for key in before if not key.startswith(tuple(f"{path}." for path in kept))]
    assert all(torch.equal(swapped.state_dict()[key], before[key]) for key in kept)
    assert not swapped.training
    fused = swapped(**inputs).fused
    assert fused.shape == expected.shape
    assert not torch.equal(fused, expected)
    fast = fb.optimize(swapped)
    torch.testing.assert_close(fast(**inputs).fused, fused, rtol=1e-3, atol=1e-4)
    swapped.train()(**pair(name, 64, 64, batch=2)).fused.mean().backward()
    new = [parameter for key, parameter in swapped.named_parameters() if key not in kept]
    assert all(parameter.grad is not None for parameter in new)


def test_the_diffusion_model_is_tried_on_its_first_pass() -> None:
    options = {"channels": 8, "norm_groups": 4, "transformer_channels": 8, "num_inference_steps": 1000}
    model = fb.create_model("sgdfuse", **options)
    swapped = fb.swap(model, fb.MSFEM, lambda old: fb.MSFEM(old.channels, kernel_sizes=(3,)))
    assert len(swapped.preliminary.enhance_visible.scales) == 1
    with pytest.raises(
        ValueError, match=r"Conv2d in place of AggregationHead at head cannot take \(1, 8, 32, 32\), .*: conv2d\(\)"
    ):
        fb.swap(model, fb.HFAH, lambda old: nn.Conv2d(8, 3, 1))


def test_a_block_at_two_places_is_exchanged_once() -> None:
    shared = fb.SceneMask(8)
    host = nn.Sequential(shared, nn.Sequential(shared), fb.SceneMask(8))
    made = []
    swapped = fb.swap(host, fb.SceneMask, lambda old: made.append(fb.UniNet(old.channels, reduction=2)) or made[-1])
    assert len(made) == 2
    assert swapped[0] is swapped[1][0] is made[0]
    assert isinstance(host[0], fb.SceneMask)


def test_the_whole_and_blocks_in_blocks() -> None:
    swapped = fb.swap(fb.SceneMask(8), fb.SceneMask, lambda old: nn.Identity())
    assert isinstance(swapped, nn.Identity)
    nested = nn.Sequential(nn.Sequential(nn.Sequential(nn.Identity())))
    assert repr(fb.swap(nested, nn.Sequential, lambda old: nn.Tanh())) == repr(nn.Tanh())


def test_new_blocks_have_the_mode_and_dtype_of_the_old() -> None:
    host = nn.Sequential(fb.SceneMask(8), fb.LeFF(8)).double().eval()
    swapped = fb.swap(host, fb.LeFF, lambda old: fb.SceneMask(old.channels))
    assert swapped[1].norm.weight.dtype == torch.float64
    assert not swapped[1].training
    assert fb.swap(host.train(), fb.LeFF, lambda old: fb.SceneMask(old.channels))[1].training


def test_trials_need_no_kind_when_inputs_are_given() -> None:
    host = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1))
    inputs = {"input": torch.rand(1, 3, 6, 6)}
    fb.swap(host, nn.Conv2d, lambda old: nn.Conv2d(old.in_channels, old.out_channels, 3, padding=1), inputs=inputs)
    wrong = r"Conv2d in place of Conv2d at 1 must return \(1, 5, 6, 6\), got \(1, 5, 4, 4\)"
    with pytest.raises(ValueError, match=wrong):
        fb.swap(
            host,
            nn.Conv2d,
            lambda old: nn.Conv2d(old.in_channels, old.out_channels, 3, padding=int(old.out_channels == 4)),
            inputs=inputs,
        )


def test_what_does_not_fit_is_refused_by_place() -> None:
    model = fb.create_model("psfusion", **NARROW["psfusion"])
    with pytest.raises(
        ValueError, match=r"Mean in place of SDFM at detail_fusion\.0 must return \(1, 32, 32, 32\), got"
    ):
        fb.swap(model, fb.SDFM, lambda old: Mean(old.in_channels, 5))
    with pytest.raises(
        ValueError, match=r"ImageHead in place of SDFM at detail_fusion\.0 cannot take infrared \(1, 32"
    ):
        fb.swap(model, fb.SDFM, lambda old: fb.ImageHead(old.channels))
    with pytest.raises(ValueError, match=r"model has no CAI; its modules are .*SDFM"):
        fb.swap(model, fb.CAI, lambda old: old)
    with pytest.raises(TypeError, match=r"factory must return a torch.nn.Module, got int for detail_fusion\.0"):
        fb.swap(model, fb.SDFM, lambda old: 3)
    with pytest.raises(TypeError, match="block must be a class of modules, got 'SDFM'"):
        fb.swap(model, "SDFM", lambda old: old)
    with pytest.raises(TypeError, match="factory must be callable.*got NoneType"):
        fb.swap(model, fb.SDFM, None)
    with pytest.raises(TypeError, match="model must be a torch.nn.Module, got function"):
        fb.swap(crop, fb.SDFM, lambda old: old)
    with pytest.raises(ValueError, match="optimized copy"):
        fb.swap(fb.optimize(model), fb.SDFM, lambda old: old)


def test_saved_with_its_swaps_and_loaded_into_the_same(tmp_path) -> None:
    torch.manual_seed(0)
    model = fb.create_model("fusionblocks")

    def swapped():
        once = fb.swap(model, fb.TransformerBlock, lambda old: fb.ChannelAttention(old.channels))
        return fb.swap(once, fb.GradientResidualDense, lambda old: fb.InvertedResidual(old.channels))

    first = swapped()
    first.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["swapped"] == {
        "context": "TransformerBlock -> ChannelAttention",
        "edges": "GradientResidualDense -> InvertedResidual",
    }
    card = (tmp_path / "README.md").read_text()
    assert "- `context`: TransformerBlock -> ChannelAttention\n- `edges`: GradientRes" in card
    with pytest.raises(ValueError, match=r"TransformerBlock -> ChannelAttention.*fusionblocks\.swap.*load_model"):
        fb.load_model(tmp_path)
    again = fb.load_model(swapped(), tmp_path)
    inputs = pair("fusionblocks", 33, 40)
    assert torch.equal(again(**inputs).fused, first(**inputs).fused)
    model.save_pretrained(tmp_path / "plain")
    assert "exchanged" not in (tmp_path / "plain" / "README.md").read_text()


def test_example_inputs_are_what_a_network_takes() -> None:
    for name in ("fusionblocks", "laplacian", "psfusion", "sgafusion", "smfnet"):
        model = fb.create_model(name, **NARROW[name]).eval()
        assert model(**model.example_inputs(2, 33, 40)).fused.shape[-2:] == (33, 40)

    class Guided(fb.FusionModel):
        name, config_class, guidance_names = "guided", type(fb.create_model("laplacian").config), ("hint",)

    with pytest.raises(NotImplementedError, match="Guided takes guidance"):
        Guided().example_inputs()
