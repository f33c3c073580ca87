"""What holds for every term: derivatives, precision, constant pictures, gradients that reach what is trained."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import Tensor

from fusionblocks import losses
from fusionblocks.losses import TERMS, FusionLoss
from tests.losses.inputs import FEATURES, constant, inputs

# VIF's windows need 41 pixels, and OHEM some pixels to leave out
SIZES = {"vif": (41, 43)}
OPTIONS = {"ohem_cross_entropy": {"n_min": 100, "threshold": 0.3}, "infrared_ssim": {"window_size": 7}}
GRAY = ("intensity_max", "joint_gradient", "masked_intensity", "source_ssim")
TRAINED = {
    "fused",
    "infrared_reconstruction",
    "visible_reconstruction",
    *FEATURES,
    "segmentation",
    "binary",
    "boundary",
    "noise_prediction",
}


def term_inputs(name: str, **options: object) -> dict[str, Tensor]:
    height, width = SIZES.get(name, (14, 17))
    given = inputs(height, width, **options)
    return {needed: given[needed] for needed in TERMS[name].inputs.values()}


def alone(name: str) -> FusionLoss:
    return FusionLoss({name: 1.0}, options={name: OPTIONS[name]} if name in OPTIONS else None)


def of_trained(name: str, given: dict[str, Tensor]) -> tuple[object, list[Tensor]]:
    """Return a term as a function of what is trained, and these inputs, which take gradients."""
    loss = alone(name)
    trained = [needed for needed in given if needed in TRAINED]
    return (
        lambda *tensors: loss(**{**given, **dict(zip(trained, tensors))}).total,
        [given[needed].clone().requires_grad_() for needed in trained],
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", TERMS)
def test_derivatives(name: str, channels: int) -> None:
    if channels == 1 and name not in GRAY:
        pytest.skip("no picture whose channels decide")
    given = term_inputs(name, batch=1 if name == "vif" else 2, channels=channels)
    if name in ("masked_intensity", "intensity_max", "source_ssim") and channels == 1:
        given["visible"] = given["visible"][:, :1]
    function, trained = of_trained(name, given)
    assert trained
    assert torch.autograd.gradcheck(function, trained, fast_mode=True)


@pytest.mark.parametrize("name", TERMS)
def test_second_derivatives(name: str) -> None:
    function, trained = of_trained(name, term_inputs(name, batch=1))
    first = torch.autograd.grad(function(*trained), trained, create_graph=True)
    if not any(x.requires_grad for x in first):
        # piecewise linear, so that the second derivative is 0 wherever there is one
        moved = [(x + 1e-7).detach().requires_grad_() for x in trained]
        torch.testing.assert_close(first, torch.autograd.grad(function(*moved), moved), rtol=0, atol=0)
        return
    assert torch.autograd.gradgradcheck(function, trained, fast_mode=True)


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", TERMS)
def test_constant_inputs_have_finite_values_and_gradients(name: str, dtype: torch.dtype, level: float) -> None:
    height, width = SIZES.get(name, (14, 17))
    given = constant(level, height=height, width=width, dtype=dtype)
    function, trained = of_trained(name, {needed: given[needed] for needed in TERMS[name].inputs.values()})
    value = function(*trained)
    gradients = torch.autograd.grad(value, trained, allow_unused=True)
    assert torch.isfinite(value)
    assert all(torch.isfinite(gradient).all() for gradient in gradients if gradient is not None)


@pytest.mark.parametrize("source", ["infrared", "visible"])
@pytest.mark.parametrize("name", [name for name, term in TERMS.items() if "infrared" in term.inputs.values()])
def test_a_constant_source_has_finite_values_and_gradients(name: str, source: str) -> None:
    given = term_inputs(name, dtype=torch.float32)
    if source not in given:
        pytest.skip("takes no such picture")
    given[source] = torch.full_like(given[source], 0.3)
    function, trained = of_trained(name, given)
    value = function(*trained)
    assert torch.isfinite(value)
    assert all(torch.isfinite(gradient).all() for gradient in torch.autograd.grad(value, trained))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", TERMS)
def test_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    given = term_inputs(name, dtype=dtype)
    widened = {needed: x.float() if x.is_floating_point() else x for needed, x in given.items()}
    expected = alone(name)(**widened).total
    function, trained = of_trained(name, given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = function(*trained)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected, rtol=0, atol=0)
    gradients = torch.autograd.grad(value, trained)
    assert all(gradient.dtype == dtype and torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("name", TERMS)
def test_float64_differs_from_float32_by_rounding_alone(name: str) -> None:
    given = term_inputs(name, dtype=torch.float32)
    widened = {needed: x.double() if x.is_floating_point() else x for needed, x in given.items()}
    value, exact = alone(name)(**given).total, alone(name)(**widened).total
    assert exact.dtype == torch.float64
    torch.testing.assert_close(value.double(), exact, rtol=2e-4, atol=1e-7)


@pytest.mark.parametrize("name", TERMS)
def test_inputs_stay_as_they_are(name: str) -> None:
    given = term_inputs(name)
    before = {needed: x.clone() for needed, x in given.items()}
    alone(name)(**given)
    assert all(torch.equal(x, before[needed]) for needed, x in given.items())


@pytest.mark.parametrize("name", TERMS)
def test_the_loss_follows_the_device_of_its_inputs(name: str) -> None:
    # the meta device refuses to meet a tensor of another one
    given = {needed: x.to("meta") for needed, x in term_inputs(name).items()}
    assert alone(name)(**given).total.device.type == "meta"


@pytest.mark.gpu
@pytest.mark.parametrize("name", TERMS)
def test_a_gpu_gives_what_the_cpu_gives(name: str) -> None:
    given = term_inputs(name, dtype=torch.float32)
    function, trained = of_trained(name, given)
    moved, theirs = of_trained(name, {needed: x.cuda() for needed, x in given.items()})
    values = function(*trained), moved(*theirs)
    torch.testing.assert_close(values[1].cpu(), values[0], rtol=1e-4, atol=1e-6)
    for here, there in zip(torch.autograd.grad(values[0], trained), torch.autograd.grad(values[1], theirs)):
        torch.testing.assert_close(there.cpu(), here, rtol=1e-3, atol=1e-4 * float(here.abs().max()))


def modules() -> dict[str, type[torch.nn.Module]]:
    """Return the module of each function: ``ColorLoss`` of ``color_loss``."""
    named = {name.removesuffix("Loss").lower(): getattr(losses, name) for name in losses.__all__ if "Loss" in name}
    functions = [name for name in losses.__all__ if name.endswith("_loss")]
    return {name: named[name.removesuffix("_loss").replace("_", "")] for name in functions}


FUNCTIONS = {
    "boundary": "two_class_loss",
    **{name: term.function.__name__ for name, term in TERMS.items() if name != "boundary"},
}


def test_every_function_is_a_term_and_has_a_module() -> None:
    assert set(FUNCTIONS.values()) == set(modules())


@pytest.mark.parametrize("name", TERMS)
def test_the_module_is_the_function(name: str) -> None:
    module, function = modules()[FUNCTIONS[name]], getattr(losses, FUNCTIONS[name])
    given = {parameter: term_inputs(name)[needed] for parameter, needed in TERMS[name].inputs.items()}
    if given.keys() == {"image", "reference"}:
        given = {parameter: x[:, :1] for parameter, x in given.items()}
    options = {
        parameter.name: parameter.default
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    theirs = {parameter.name: parameter.default for parameter in inspect.signature(module).parameters.values()}
    assert options == theirs
    made = module(**OPTIONS.get(name, {}))
    assert not made.state_dict()
    torch.testing.assert_close(made(**given), function(**given, **OPTIONS.get(name, {})), rtol=0, atol=0)
    arguments = [parameter for parameter in inspect.signature(module.forward).parameters if parameter != "self"]
    assert arguments == list(given)


CHANGED = {
    "window_size": 5,
    "sigma": 3.0,
    "salient": "visible",
    "border": "reflect",
    "padding": "zero",
    "per_picture": True,
    "detach": True,
    "form": "difference",
    "normalization": "absolute",
    "threshold": 0.6,
    "n_min": 470,
    "ignore_index": 1,
    "positive_weights": (2.0, 3.0),
    "norm": "l1",
    "reduction": "sum",
    "data_range": 0.01,
    "gain": 2.0,
    "signed": True,
    "least": 1.5,
    "bins": 12,
    "stride": 2,
}


@pytest.mark.parametrize("name", TERMS)
def test_the_module_passes_its_options_on(name: str) -> None:
    module, function = modules()[FUNCTIONS[name]], getattr(losses, FUNCTIONS[name])
    given = {parameter: term_inputs(name)[needed] for parameter, needed in TERMS[name].inputs.items()}
    if given.keys() == {"image", "reference"}:
        given = {parameter: x[:, :1] for parameter, x in given.items()}
    base = OPTIONS.get(name, {})
    for option in TERMS[name].options:
        changed = {**base, option: CHANGED[option]}
        torch.testing.assert_close(module(**changed)(**given), function(**given, **changed), rtol=0, atol=0)
        if option != "detach":
            assert module(**changed)(**given) != function(**given, **base), option
