from __future__ import annotations

import inspect
import math
import pickle

import pytest
import torch
from torch import Tensor

from fusionblocks import losses
from fusionblocks.losses import PRESETS, TERMS, FusionLoss, joint_gradient_loss
from tests.losses.inputs import inputs


def test_the_total_is_the_weighted_sum_of_the_terms() -> None:
    given = inputs()
    weights = {"intensity_max": 4.0, "color": 12.0, "scd": 0.5}
    report = FusionLoss(weights)(**given)
    assert list(report.terms) == list(weights)
    torch.testing.assert_close(report.total, sum(weights[name] * value for name, value in report.terms.items()))
    assert not any(value.requires_grad or value.ndim for value in report.terms.values())


def test_the_gradient_is_that_of_the_weighted_sum() -> None:
    given = inputs()
    fused = given["fused"].requires_grad_()
    (gradient,) = torch.autograd.grad(FusionLoss({"color": 3.0, "joint_gradient": 2.0})(**given).total, fused)
    apart = [
        torch.autograd.grad(FusionLoss({name: 1.0})(**given).total, fused)[0] for name in ("color", "joint_gradient")
    ]
    torch.testing.assert_close(gradient, 3 * apart[0] + 2 * apart[1])


def test_a_term_of_weight_zero_is_reported_and_teaches_nothing() -> None:
    given = inputs()
    fused = given["fused"].requires_grad_()
    both = FusionLoss({"color": 1.0, "intensity_max": 0.0})(**given)
    assert both.terms["intensity_max"] > 0
    alone = FusionLoss({"color": 1.0})(**given)
    gradients = [torch.autograd.grad(report.total, fused)[0] for report in (both, alone)]
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_terms_of_one_s_own() -> None:
    def lightness(fused: Tensor, *, level: float = 0.5) -> Tensor:
        return (fused.mean() - level).abs()

    loss = FusionLoss({"lightness": 2.0}, terms={"lightness": lightness}, options={"lightness": {"level": 0.25}})
    assert loss.inputs == ("fused",)
    assert loss(fused=torch.ones(1, 1, 4, 4)).total == 1.5


def test_a_loss_has_no_state_and_pickles() -> None:
    loss = FusionLoss.preset("psfusion")
    assert not loss.state_dict()
    assert not list(loss.parameters())
    restored, given = pickle.loads(pickle.dumps(loss)), inputs(channels=1)
    torch.testing.assert_close(restored(**given).total, loss(**given).total, rtol=0, atol=0)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_computes(name: str) -> None:
    loss = FusionLoss.preset(name)
    report = loss(**inputs(channels=3 if "sga" in name else 1))
    assert report.terms.keys() == PRESETS[name].weights.keys()
    assert torch.isfinite(report.total)


def test_presets_hold_the_published_weights() -> None:
    # what a training script adds up, with SMFNet's SSIM halved and its decomposition's numerator doubled
    assert PRESETS["sgafusion"].weights == {
        "intensity_max": 4,
        "color": 12,
        "axis_gradient": 10,
        "cross_entropy": 1,
    }
    assert sum(PRESETS["psfusion"].weights.values()) == 3 * 10 + 1 + 10 + 10 + 4 * 5
    assert PRESETS["smfnet"].weights == {"intensity_max": 1, "joint_gradient": 10, "decomposition": 2 * 2}
    assert PRESETS["sgdfuse"].weights == {"intensity_max": 1.5, "joint_gradient": 1}
    reconstruction = PRESETS["smfnet_reconstruction"].weights
    assert [reconstruction[f"{modality}_ssim"] for modality in ("infrared", "visible")] == [8 / 2, 8 / 2]


def test_presets_reproduce_what_the_scripts_do_and_name_the_alternative() -> None:
    given = inputs(channels=1)
    features = {name: given[name].requires_grad_() for name in TERMS["decomposition"].inputs}
    decomposition = {"intensity_max": None, "joint_gradient": None}
    published = FusionLoss.preset("smfnet", weights=decomposition)(**given)
    papers = FusionLoss.preset("smfnet", weights=decomposition, options={"decomposition": {"detach": False}})(**given)
    assert not published.total.requires_grad
    assert papers.total == published.total
    assert all(x.abs().sum() > 0 for x in torch.autograd.grad(papers.total, list(features.values())))

    everywhere = {**given, "mask": torch.ones_like(given["mask"]), "fused": given["infrared"]}
    published = FusionLoss.preset("psfusion")(**everywhere)
    papers = FusionLoss.preset("psfusion", options={"masked_patch_mse": {"salient": "infrared"}})(**everywhere)
    assert papers.terms["masked_patch_mse"] == 0
    assert published.terms["masked_patch_mse"] > 0


def test_overrides_of_a_preset() -> None:
    loss = FusionLoss.preset("sgafusion", weights={"color": 1, "cross_entropy": None, "vif": 0.5})
    assert loss.weights == {"intensity_max": 4, "color": 1, "axis_gradient": 10, "vif": 0.5}
    assert loss.options == {"axis_gradient": {"border": "replicate"}}
    assert FusionLoss.preset("sgafusion", weights={"axis_gradient": None}).options == {}
    assert repr(FusionLoss.preset("smfnet")) == "FusionLoss(1 intensity_max + 10 joint_gradient + 4 decomposition)"


def test_the_inputs_of_a_preset_are_named() -> None:
    assert FusionLoss.preset("sgafusion").inputs == ("fused", "infrared", "labels", "segmentation", "visible")
    assert set(FusionLoss.preset("psfusion").inputs) == {
        *("fused", "infrared", "visible", "mask", "infrared_reconstruction", "visible_reconstruction"),
        *("segmentation", "labels", "binary", "binary_labels", "boundary", "boundary_labels"),
    }


def test_it_compiles_without_a_break() -> None:
    loss, given = FusionLoss.preset("sgafusion"), inputs(dtype=torch.float32)
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(**given).total, loss(**given).total)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (({"intensity_mx": 1.0},), ValueError, "unknown term 'intensity_mx', did you mean 'intensity_max'?"),
        (({},), ValueError, "at least one term"),
        (({"color": -1.0},), ValueError, "the weight of color must be at least 0, got -1.0"),
        (({"color": math.nan},), ValueError, "the weight of color must be at least 0, got nan"),
        (({"color": "4"},), TypeError, "the weight of color must be a number, got '4' of type str"),
        (({"color": True},), TypeError, "the weight of color must be a number, got True of type bool"),
    ],
)
def test_wrong_weights(arguments: tuple, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        FusionLoss(*arguments)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"axis_gradient": {"boder": "zero"}},
            "unknown option of the term 'axis_gradient' 'boder', did you mean 'border'?",
        ),
        ({"color": {"border": "zero"}}, "options are given for a term without weight"),
    ],
)
def test_wrong_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match="option") as raised:
        FusionLoss({"axis_gradient": 1.0}, options=options)
    assert message in str(raised.value)


def test_wrong_presets_and_terms() -> None:
    with pytest.raises(ValueError, match="unknown preset 'psfussion', did you mean 'psfusion'"):
        FusionLoss.preset("psfussion")
    with pytest.raises(ValueError, match="unknown term of the preset 'smfnet' 'color'"):
        FusionLoss.preset("smfnet", weights={"color": None})
    with pytest.raises(ValueError, match="terms must have names of their own, 'color' is taken"):
        FusionLoss({"color": 1.0}, terms={"color": joint_gradient_loss})
    with pytest.raises(TypeError, match="must be a function of its inputs, got int"):
        FusionLoss({"mine": 1.0}, terms={"mine": 3})
    with pytest.raises(TypeError, match="must name its inputs"):
        FusionLoss({"mine": 1.0}, terms={"mine": lambda *pictures: pictures[0]})


def test_a_missing_input_names_term_and_input() -> None:
    given = inputs()
    loss = FusionLoss.preset("sgafusion")
    for missing in ({"labels": None}, {}):
        some = {name: given[name] for name in ("fused", "infrared", "visible", "segmentation")}
        with pytest.raises(
            ValueError, match="the term 'cross_entropy' needs the input 'labels', got fused, infrared, seg"
        ):
            loss(**some, **missing)


def test_modules_carry_their_function_over() -> None:
    loss = losses.AxisGradientLoss(border="replicate", gain=2.0)
    assert repr(loss) == "AxisGradientLoss(border='replicate', gain=2.0, signed=False)"
    assert (loss.border, loss.gain, loss.signed) == ("replicate", 2.0, False)
    assert list(inspect.signature(losses.AxisGradientLoss).parameters) == ["border", "gain", "signed"]
    assert list(inspect.signature(loss.forward).parameters) == ["fused", "infrared", "visible"]
    assert "gain: How many times stronger the fused edges should be" in losses.AxisGradientLoss.__doc__
    pictures = torch.rand(3, 1, 1, 8, 8).unbind()
    expected = losses.axis_gradient_loss(*pictures, border="replicate", gain=2.0)
    assert torch.equal(pickle.loads(pickle.dumps(loss))(*pictures), expected)
    loss.gain = 1.0
    assert torch.equal(loss(*pictures), losses.axis_gradient_loss(*pictures, border="replicate"))
    with pytest.raises(TypeError, match=r"AxisGradientLoss\(\) got an unexpected .*'gian'; its options: border, gain"):
        losses.AxisGradientLoss(gian=2.0)
