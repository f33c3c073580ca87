"""``fb.optimize``: the same outputs and errors, from other weights and in another order."""

from __future__ import annotations

import copy
import dataclasses
from typing import NamedTuple

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

import fusionblocks as fb
from fusionblocks.optimization import strips
from tests.helpers.memory import peak_bytes
from tests.helpers.networks import NARROW, pair, trained_like

NAMES = ("psfusion", "sgafusion", "smfnet")


@pytest.fixture(scope="module")
def networks() -> dict[str, fb.FusionModel]:
    return {name: trained_like(name, **NARROW[name]) for name in NARROW}


def tensors(output: fb.FusionOutput) -> dict[str, Tensor]:
    found = {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
    features = found.pop("features", None) or {}
    return {name: value for name, value in {**found, **features}.items() if value is not None}


def assert_equal_outputs(got: fb.FusionOutput, expected: fb.FusionOutput, tolerance: float) -> None:
    got_tensors, expected_tensors = tensors(got), tensors(expected)
    assert got_tensors.keys() == expected_tensors.keys()
    for name, value in expected_tensors.items():
        scale = max(1.0, value.abs().max().item())
        error = (got_tensors[name] - value).abs().max().item()
        assert got_tensors[name].dtype == value.dtype, name
        assert error <= tolerance * scale, f"{name}: {error:.2e} off, values up to {scale:.2g}"


@torch.no_grad()
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 96, 96), (2, 75, 50)])
@pytest.mark.parametrize("name", NARROW)
def test_same_outputs(networks, name: str, batch: int, height: int, width: int) -> None:
    model, inputs = networks[name], pair(name, height, width, batch=batch)
    assert_equal_outputs(fb.optimize(model)(**inputs), model(**inputs), 1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", NARROW)
def test_float64_shows_that_it_is_the_same_function(networks, name: str) -> None:
    model = copy.deepcopy(networks[name]).double()
    inputs = {key: value.double() for key, value in pair(name, 75, 50, batch=2).items()}
    assert_equal_outputs(fb.optimize(model)(**inputs), model(**inputs), 1e-10)


@torch.no_grad()
@pytest.mark.parametrize("outputs", [None, ("fused",)])
@pytest.mark.parametrize("name", NAMES)
def test_strips_of_any_height_are_the_same_function(networks, name: str, outputs, monkeypatch) -> None:
    model = copy.deepcopy(networks[name]).double()
    inputs = {key: value.double() for key, value in pair(name, 45, 33, batch=2).items()}
    expected = model(**inputs)
    if outputs:
        expected = fb.FusionOutput(expected.fused)
    fast = fb.optimize(model, outputs=outputs)
    monkeypatch.setattr(strips, "PIXELS", 1)  # strips of 8 rows, the last of 5
    assert_equal_outputs(fast(**inputs), expected, 1e-10)


def test_strips_of_narrow_numbers_are_higher() -> None:
    heights = [next(strips.strips(torch.empty(1, 1, 480, 640, dtype=dtype), halo=0)).bottom
               for dtype in (torch.float64, torch.float32, torch.bfloat16)]  # fmt: skip
    assert heights == [8, 16, 32]


@torch.no_grad()
@pytest.mark.parametrize("place", ["block", "pair"])
def test_blocks_of_ones_own_may_stand_in_a_group(networks, place: str, monkeypatch) -> None:
    model = copy.deepcopy(networks["smfnet"]).double()
    pairs = model.encoder.base.layers[0].pairs
    (pairs if place == "pair" else pairs[0])[0] = nn.Conv2d(pairs[0][0].channels, pairs[0][0].channels, 1).double()
    inputs = {key: value.double() for key, value in pair("smfnet", 45, 33).items()}
    monkeypatch.setattr(strips, "PIXELS", 1)
    assert_equal_outputs(fb.optimize(model)(**inputs), model(**inputs), 1e-10)


def test_a_strip_is_run_with_its_halo(monkeypatch) -> None:
    monkeypatch.setattr(strips, "PIXELS", 1)
    conv = nn.Conv2d(2, 3, 5, padding=2).double()
    x = torch.rand(1, 2, 43, 9, dtype=torch.float64)
    seen = []

    @torch.no_grad()
    def function(x: Tensor) -> Tensor:
        seen.append(x.shape[2])
        return conv(x)

    with torch.no_grad():
        torch.testing.assert_close(strips.in_strips(function, x, halo=2), conv(x))
        assert seen == [10, 12, 12, 12, 12, 5]
        assert (strips.in_strips(function, x, halo=1) - conv(x)).abs().max() > 1e-3


@torch.no_grad()
def test_an_argument_may_be_overwritten_with_the_result(monkeypatch) -> None:
    monkeypatch.setattr(strips, "PIXELS", 1)
    convs = [nn.Conv2d(3, 3, 5, padding=2).double() for _ in range(2)]
    first, second = torch.rand(2, 1, 3, 43, 9, dtype=torch.float64)
    expected = [conv(first + second) for conv in convs]

    class Both(NamedTuple):
        one: Tensor
        two: Tensor

    def function(first: Tensor, second: Tensor) -> Both:
        return Both(*(conv(first + second) for conv in convs))

    result = strips.in_strips(function, first, second, halo=2, onto=(second, first))
    assert (result.one.data_ptr(), result.two.data_ptr()) == (second.data_ptr(), first.data_ptr())
    torch.testing.assert_close(list(result), expected)


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "options", "scale", "channels"),
    [("smfnet", {"base_layers": 1, "base_depth": 1}, 4, 990), ("sgafusion", {}, 4, 750), ("psfusion", {}, 2, 210)],
)
def test_peak_memory(name: str, options: dict[str, int], scale: int, channels: int, monkeypatch) -> None:
    """It stays below so many channels of the picture's size: half of what the networks' published steps need."""
    height, width = 480 // scale, 640 // scale
    model, inputs = trained_like(name, **options), pair(name, height, width, semantic=512)
    monkeypatch.setattr(strips, "PIXELS", strips.PIXELS // scale**2)  # as many strips as in a picture of 480 x 640
    fast, alone = fb.optimize(model), fb.optimize(model, outputs=("fused",))
    bound = channels * height * width * torch.float32.itemsize
    assert peak_bytes(lambda: fast(**inputs)) < bound
    assert peak_bytes(lambda: alone(**inputs)) < bound


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_full_width(name: str) -> None:
    model = trained_like(name)
    inputs = pair(name, 64, 96, semantic=512)
    assert_equal_outputs(fb.optimize(model)(**inputs), model(**inputs), 1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_model_is_left_alone(networks, name: str) -> None:
    model = copy.deepcopy(networks[name]).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        fb.optimize(model, torch.bfloat16, outputs=("fused",))(**pair(name, 64, 64))
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.state_dict().keys() == before.keys()
    for key, value in model.state_dict().items():
        assert value.dtype == before[key].dtype
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_the_copy_is_for_inference(networks, name: str, tmp_path) -> None:
    fast = fb.optimize(networks[name])
    assert isinstance(fast, type(networks[name]))
    assert not fast.training
    assert not any(parameter.requires_grad for parameter in fast.parameters())
    assert not fast(**pair(name, 64, 64)).fused.requires_grad
    with pytest.raises(RuntimeError, match="original"):
        fast.save_pretrained(tmp_path)


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_no_norm_behind_a_convolution_runs(networks, name: str) -> None:
    fast = fb.optimize(networks[name])
    ran = []
    for module in fast.modules():
        if isinstance(module, BatchNormAct2d):
            module.register_forward_hook(lambda module, args, output: ran.append(module))
    fast(**pair(name, 64, 64))
    assert not ran


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_optimizing_twice_changes_nothing(networks, name: str) -> None:
    inputs = pair(name, 64, 64)
    once = fb.optimize(networks[name])
    twice = fb.optimize(once, outputs=("fused",))
    torch.testing.assert_close(twice(**inputs).fused, once(**inputs).fused, rtol=0, atol=1e-6)
    assert tensors(twice(**inputs)).keys() == {"fused"}
    assert tensors(once(**inputs)).keys() != {"fused"}


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_outputs_that_are_not_asked_for_are_none(networks, name: str) -> None:
    model, inputs = networks[name], pair(name, 64, 64)
    expected = model(**inputs)
    alone = fb.optimize(model, outputs=("fused",))(**inputs)
    assert tensors(alone).keys() == {"fused"}
    torch.testing.assert_close(alone.fused, expected.fused, rtol=0, atol=1e-4)
    extra = next(field for field in ("features", "segmentation") if getattr(expected, field) is not None)
    output = fb.optimize(model, outputs=("fused", extra))(**inputs)
    kept = type(expected)(expected.fused, **{extra: getattr(expected, extra)})
    assert_equal_outputs(output, kept, 1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "least"), [(torch.bfloat16, 35), (torch.float16, 50)])
@pytest.mark.parametrize("name", NAMES)
def test_halves_return_float32_near_the_original(networks, name: str, dtype: torch.dtype, least: float) -> None:
    model, inputs = networks[name], pair(name, 96, 96)
    fast = fb.optimize(model, dtype)
    kept = {parameter.dtype for parameter in fast.parameters()} - {dtype}
    assert kept == ({torch.float32} if name == "psfusion" else set())  # its details at full resolution
    output = fast(**inputs)
    assert {value.dtype for value in tensors(output).values()} == {torch.float32}
    error = (output.fused - model(**inputs).fused).square().mean()
    assert -10 * torch.log10(error) > least


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "tolerance"), [(None, 1e-4), (torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_sgdfuse_draws_the_same_noise(dtype: torch.dtype | None, tolerance: float) -> None:
    torch.manual_seed(0)
    model = fb.SGDFuse(channels=8, norm_groups=4, transformer_channels=8, num_inference_steps=8).eval()
    inputs = pair("sgdfuse", 37, 42)
    masks = {"infrared_mask": inputs["infrared"], "visible_mask": inputs["infrared"].round()}
    expected, got = (
        network(**inputs, **masks, generator=torch.Generator().manual_seed(0))
        for network in (model, fb.optimize(model, dtype))
    )
    assert_equal_outputs(got, expected, tolerance)


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "tolerance"), [(None, 1e-4), (torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_smfnet_still_reconstructs(networks, dtype: torch.dtype | None, tolerance: float) -> None:
    model, inputs = networks["smfnet"], pair("smfnet", 64, 64)
    expected, got = model.reconstruct(**inputs), fb.optimize(model, dtype).reconstruct(**inputs)
    for name in ("infrared", "visible"):
        torch.testing.assert_close(getattr(got, name), getattr(expected, name), rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_errors_are_unchanged(networks, name: str) -> None:
    model, inputs = networks[name], pair(name, 64, 64)
    wrong = [
        {"visible": inputs["visible"][..., :-1]},
        {"infrared": inputs["infrared"][0]},
        {"infrared": (255 * inputs["infrared"]).to(torch.uint8)},
        {"visible": inputs["visible"][:, :2]},
    ]
    for fast in (fb.optimize(model), fb.optimize(model, torch.bfloat16)):
        for change in wrong:
            with pytest.raises((TypeError, ValueError)) as expected:
                model(**{**inputs, **change})
            with pytest.raises(expected.type) as got:
                fast(**{**inputs, **change})
            assert str(got.value) == str(expected.value)


def test_wrong_arguments_are_refused_by_name(networks) -> None:
    model = networks["laplacian"]
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got str"):
        fb.optimize("psfusion")
    with pytest.raises(ValueError, match="outputs are those of a FusionModel.*Linear"):
        fb.optimize(nn.Linear(2, 2), outputs=("fused",))
    with pytest.raises(ValueError, match=r"dtype.*float16, got torch.float64"):
        fb.optimize(model, torch.float64)
    with pytest.raises(ValueError, match=r"segmentatoin.*did you mean 'segmentation'"):
        fb.optimize(model, outputs=("segmentatoin",))
    with pytest.raises(TypeError, match="sequence"):
        fb.optimize(model, outputs="fused")


@pytest.mark.parametrize("name", NAMES)
def test_compiles_and_exports(networks, name: str) -> None:
    torch.compiler.reset()
    fast, inputs = fb.optimize(networks[name]), pair(name, 64, 64)
    with torch.no_grad():
        expected = fast(**inputs).fused
        compiled = torch.compile(fast, fullgraph=True, backend="aot_eager")(**inputs).fused
        exported = torch.export.export(fast, (), kwargs=inputs).module()(**inputs).fused
    torch.testing.assert_close(compiled, expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(exported, expected, rtol=1e-3, atol=1e-4)


def test_a_guide_is_shared(networks) -> None:
    model = copy.deepcopy(networks["sgafusion"])
    guide = nn.Linear(1, 1)
    model.attach_guidance(guide)
    assert fb.optimize(model)._guide[0] is guide


def test_a_network_of_ones_own_is_optimized_too() -> None:
    class Own(fb.FusionModel):
        name, config_class = "own", fb.models.model_class("laplacian").config_class

        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
            self.block = fb.TransformerBlock(8, num_heads=2)
            self.head = nn.Conv2d(8, 1, 1)

        def forward(self, infrared: Tensor, visible: Tensor) -> fb.FusionOutput:
            return fb.FusionOutput(fused=self.head(self.block(self.stem(infrared))))

    torch.manual_seed(0)
    model = Own()
    model(torch.rand(2, 1, 16, 16), torch.rand(2, 3, 16, 16))
    fast = fb.optimize(model.eval())
    assert len(fast.stem) == 3
    assert isinstance(fast.stem[1], nn.BatchNorm2d)  # whoever reaches into a sequence finds what was there
    assert not any(isinstance(part, nn.BatchNorm2d) for part in fast.stem.prepared)
    inputs = pair("own", 40, 33)
    torch.testing.assert_close(fast(**inputs).fused, model(**inputs).fused, rtol=1e-4, atol=1e-5)


def test_fuses_pictures(networks) -> None:
    scene = fb.data.synthetic_scene(2, height=64, width=96)
    model = networks["psfusion"]
    fast = fb.fuse(scene.infrared, scene.visible, model=fb.optimize(model, outputs=("fused",)))
    torch.testing.assert_close(fast, fb.fuse(scene.infrared, scene.visible, model=model), rtol=0, atol=1e-3)
