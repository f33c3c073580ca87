"""SGDFuse as a diffusers pipeline: the network's own result, saved and loaded, by any scheduler, in bounded memory."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import fusionblocks as fb
from fusionblocks.models import make_scheduler
from tests.helpers.memory import peak_bytes

SMALL = {
    "channels": 8,
    "norm_groups": 4,
    "layers_per_block": 1,
    "head_channels": 8,
    "enhancement_channels": 4,
    "transformer_channels": 8,
    "transformer_blocks": 1,
    "num_heads": 2,
    "num_inference_steps": 8,
    "strength": 0.4,  # 3 passes
}
PICTURES = ("fused", "preliminary", "denoised")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_model(**options: Any) -> fb.SGDFuse:
    torch.manual_seed(0)
    return fb.SGDFuse(**{**SMALL, **options}).eval()


def make(**options: Any) -> fb.SGDFusePipeline:
    pipeline = fb.SGDFusePipeline.from_model(make_model(**options))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def inputs(batch: int = 2, height: int = 21, width: int = 30) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {
        "infrared": torch.rand(batch, 1, height, width),
        "visible": torch.rand(batch, 3, height, width),
        "infrared_mask": torch.rand(batch, 1, height, width).round(),
        "visible_mask": torch.rand(batch, 1, height, width).round(),
    }


def masks_of(arguments: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: mask for name, mask in arguments.items() if name.endswith("mask")}


# --- the network's result ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["ddim", "dpm-solver++", "published"])
def test_computes_what_the_network_computes(sampler: str) -> None:
    model = make_model(sampler=sampler, strength=0.05 if sampler == "published" else 0.4)
    pipeline = fb.SGDFusePipeline.from_model(model)
    pipeline.set_progress_bar_config(disable=True)
    pair = inputs()
    with torch.no_grad():
        expected = model(**pair, generator=seeded())
    output = pipeline(**pair, generator=seeded())
    assert torch.equal(output.fused, expected.fused)
    assert torch.equal(output.preliminary, expected.preliminary)
    assert output.images is output.fused
    for name in PICTURES:
        picture = output[name]
        assert picture.shape == (2, 3, 21, 30)
        assert 0 <= picture.min() <= picture.max() <= 1
        assert not picture.requires_grad


def test_shares_the_networks_modules_and_modes() -> None:
    model = make_model(dropout=0.5)
    model.denoiser.train()
    pipeline = fb.SGDFusePipeline.from_model(model)
    pipeline.set_progress_bar_config(disable=True)
    pair = inputs(1)
    first, again = (pipeline(**pair, generator=seeded()).fused for _ in range(2))
    assert torch.equal(first, again)  # no dropout inside
    assert all(module.training for module in model.denoiser.modules())
    assert not model.head.training
    for name, module in pipeline.components.items():
        assert name == "scheduler" or module is getattr(model, name)


def test_goes_back_to_a_network_without_copying() -> None:
    model = make_model(sampler="dpm-solver++")
    back = fb.SGDFusePipeline.from_model(model).to_model()
    assert back.config == model.config
    assert [*back.state_dict()] == [*model.state_dict()]
    own = dict(model.named_parameters())
    assert all(parameter is own[name] for name, parameter in back.named_parameters())
    assert not back.training
    pipeline = make()
    pipeline.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    with pytest.raises(ValueError, match=r"'ddim'.*EulerDiscreteScheduler.*make_scheduler"):
        pipeline.to_model()


def test_diffuse_and_denoise_are_the_halves_of_a_call() -> None:
    pipeline, pair = make(), inputs()
    output = pipeline(**pair, generator=seeded())
    with torch.no_grad():
        preliminary = pipeline.preliminary(pair["infrared"], pair["visible"])
    assert torch.equal(preliminary, output.preliminary)
    noisy = pipeline.diffuse(preliminary, generator=seeded())
    halves = pipeline.denoise(noisy, **masks_of(pair), generator=seeded(5))  # DDIM draws no noise on its way
    assert torch.equal(halves.fused, output.fused)
    assert torch.equal(halves.denoised, output.denoised)
    assert halves.preliminary is None


def test_one_pass_sees_what_refine_sees() -> None:
    model = make_model()
    pipeline = fb.SGDFusePipeline.from_model(model)
    pipeline.set_progress_bar_config(disable=True)
    pair = inputs(2, 16, 24)
    noisy = torch.randn(2, 3, 16, 24)
    (level,) = pipeline.noise_levels(8, 1 / 8)
    one = pipeline.denoise(noisy, **masks_of(pair), num_inference_steps=8, strength=1 / 8)
    with torch.no_grad():
        noise, fused = model.refine(noisy, torch.full((2,), level), **masks_of(pair))
    assert torch.equal(one.fused, fused)
    signed = (noisy - (1 - level**2) ** 0.5 * noise) / level
    torch.testing.assert_close(one.denoised, ((signed + 1) / 2).clamp(0, 1), rtol=0, atol=1e-5)


def test_noise_of_a_picture_depends_on_nothing_else_of_the_batch() -> None:
    pipeline, pair = make(), inputs(3)
    pipeline.scheduler = diffusers.EulerAncestralDiscreteScheduler.from_config(pipeline.scheduler.config)
    whole = pipeline(**pair, generator=[seeded(i) for i in range(3)]).fused
    alone = pipeline(**{name: tensor[1:2] for name, tensor in pair.items()}, generator=seeded(1)).fused
    torch.testing.assert_close(whole[1:2], alone, rtol=0, atol=1e-5)
    assert (whole - pipeline(**pair, generator=[seeded(i + 9) for i in range(3)]).fused).abs().max() > 1e-4


def test_a_guide_gives_the_masks() -> None:
    pair = inputs()
    masks = masks_of(pair)
    model = make_model()
    model.attach_guidance(lambda infrared, visible: (pair["infrared_mask"], pair["visible_mask"]))
    pipeline = fb.SGDFusePipeline.from_model(model)
    pipeline.set_progress_bar_config(disable=True)
    without = {name: tensor for name, tensor in pair.items() if name not in masks}
    guided = pipeline(**without, generator=seeded()).fused
    assert torch.equal(guided, pipeline(**pair, generator=seeded()).fused)
    assert torch.equal(pipeline.to_model()(**without, generator=seeded()).fused, guided)
    pipeline.attach_guidance(None)
    with pytest.raises(ValueError, match="infrared_mask and visible_mask"):
        pipeline(**without)
    with pytest.raises(TypeError, match="guide must be callable"):
        pipeline.attach_guidance("sam")


# --- saving --------------------------------------------------------------------------------------------------------


def test_saving_and_loading_is_exact_and_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    pipeline, pair = make(attention_levels=(1,), strength=0.5), inputs()
    pipeline.scheduler = diffusers.UniPCMultistepScheduler.from_config(pipeline.scheduler.config)
    expected = pipeline(**pair, generator=seeded())
    pipeline.save_pretrained(tmp_path)
    loaded = fb.SGDFusePipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    for name in ("denoiser", "preliminary", "head"):
        own, other = getattr(pipeline, name).state_dict(), getattr(loaded, name).state_dict()
        assert own.keys() == other.keys()
        assert all(torch.equal(own[key], other[key]) for key in own)
        assert not getattr(loaded, name).training
    output = loaded(**pair, generator=seeded())
    assert all(torch.equal(output[name], expected[name]) for name in PICTURES)
    assert type(loaded.scheduler) is diffusers.UniPCMultistepScheduler
    loaded.scheduler = make_scheduler("ddim")
    assert loaded.to_model().config == make_model(attention_levels=(1,), strength=0.5).config


@pytest.mark.parametrize("part", ["denoiser", "preliminary", "head"])
def test_loading_is_strict(tmp_path: Path, part: str) -> None:
    make().save_pretrained(tmp_path)
    file = tmp_path / part / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    name = next(iter(state))
    weight = state.pop(name)
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"1 missing: {name}"):
        fb.SGDFusePipeline.from_pretrained(tmp_path)
    save_file({**state, name: weight, "extra": torch.zeros(1)}, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"1 surplus: extra"):
        fb.SGDFusePipeline.from_pretrained(tmp_path)


def test_modules_can_be_passed_on_loading(tmp_path: Path) -> None:
    pipeline = make()
    pipeline.save_pretrained(tmp_path)
    loaded = fb.SGDFusePipeline.from_pretrained(tmp_path, scheduler=make_scheduler("dpm-solver++"), strength=1.0)
    assert type(loaded.scheduler).__name__ == "DPMSolverMultistepScheduler"
    assert len(loaded.noise_levels()) == 8
    assert json.loads((tmp_path / "model_index.json").read_text())["strength"] == 0.4


# --- steps ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["DDPM", "EulerDiscrete", "HeunDiscrete", "DPMSolverSinglestep", "LCM"])
def test_any_scheduler_samples(kind: str) -> None:
    pipeline, pair = make(), inputs(1)
    pipeline.scheduler = getattr(diffusers, f"{kind}Scheduler").from_config(pipeline.scheduler.config)
    seen: list[float] = []
    run = pipeline.denoiser.forward_features
    pipeline.denoiser.forward_features = lambda x, level: seen.append(float(level[0])) or run(x, level)
    first, again, other = (pipeline(**pair, generator=seeded(seed)).fused for seed in (0, 0, 1))
    assert torch.isfinite(first).all()
    assert torch.equal(first, again)
    assert (first - other).abs().max() > 1e-4
    assert seen[: len(seen) // 3] == pytest.approx(pipeline.noise_levels(), abs=1e-6)


def test_a_call_overrides_the_configured_steps() -> None:
    pipeline, pair = make(), inputs(1)
    numbers: list[int] = []
    count = lambda _pipeline, number, _step, _tensors: numbers.append(number)  # noqa: E731
    for steps, passes in (({}, 3), ({"num_inference_steps": 4, "strength": 1.0}, 4), ({"strength": 1e-3}, 1)):
        numbers.clear()
        pipeline(**pair, **steps, callback_on_step_end=count)
        assert numbers == list(range(passes))
        assert len(pipeline.noise_levels(**steps)) == passes


def test_the_callback_sees_and_may_change_the_steps() -> None:
    pipeline, pair = make(), inputs()
    calls: list[tuple[float, Tensor]] = []

    def watch(owner: fb.SGDFusePipeline, number: int, timestep: float, tensors: dict[str, Tensor]) -> None:
        assert owner is pipeline
        assert tensors["noisy"].shape == tensors["denoised"].shape == (2, 3, 24, 32)  # padded
        assert 0 <= tensors["denoised"].min() <= tensors["denoised"].max() <= 1
        calls.append((timestep, tensors["denoised"]))

    plain = pipeline(**pair, generator=seeded(), callback_on_step_end=watch)
    assert [timestep for timestep, _ in calls] == [374, 249, 124]
    assert torch.equal(fb.image.crop(calls[-1][1], fb.image.Padding(1, 1, 1, 2)), plain.denoised)

    changed = pipeline(
        **pair, generator=seeded(), callback_on_step_end=lambda _p, _n, _t, tensors: {"noisy": 0 * tensors["noisy"]}
    )
    assert (changed.fused - plain.fused).abs().max() > 1e-4
    kept = pipeline(**pair, generator=seeded(), callback_on_step_end=lambda *_: {})
    assert torch.equal(kept.fused, plain.fused)


def test_kinds_of_output() -> None:
    pipeline, pair = make(), inputs()
    tensors, arrays, pictures = (pipeline(**pair, generator=seeded(), output_type=kind) for kind in ("pt", "np", "pil"))
    for name in PICTURES:
        assert arrays[name].shape == (2, 21, 30, 3)
        assert np.array_equal(arrays[name], tensors[name].permute(0, 2, 3, 1).numpy())
        assert all(isinstance(picture, Image.Image) and picture.size == (30, 21) for picture in pictures[name])
    assert np.abs(np.asarray(pictures.fused[1]) / 255 - arrays.fused[1]).max() <= 0.5 / 255 + 1e-6


# --- large pictures ------------------------------------------------------------------------------------------------


def see_two_pixels(pipeline: fb.SGDFusePipeline) -> None:
    """Exchange the networks for convolutions: no norm, no attention, two pixels seen around each."""
    torch.manual_seed(2)
    kernel, mixing = 0.2 * torch.randn(3, 5, 5, 5), 0.2 * torch.randn(3, 3, 1, 1)

    def features(x: Tensor, level: Tensor) -> tuple[Tensor, list[Tensor]]:
        noise = F.conv2d(x, kernel, padding=2) * level.view(-1, 1, 1, 1)
        return noise, [noise]

    pipeline.denoiser.forward_features = features
    pipeline.head.forward = lambda found: F.conv2d(found[0], mixing).tanh()
    pipeline.preliminary.forward = lambda infrared, visible: F.avg_pool2d((infrared + visible) / 2, 5, 1, 2)


@pytest.mark.parametrize("kind", ["DDIM", "DDPM", "DPMSolverMultistep"])
def test_tiles_give_the_untiled_picture_where_the_overlap_shows_all_that_is_seen(kind: str) -> None:
    pipeline, pair = make(), inputs(1, 70, 93)
    pipeline.scheduler = getattr(diffusers, f"{kind}Scheduler").from_config(pipeline.scheduler.config)
    see_two_pixels(pipeline)
    whole = pipeline(**pair, generator=seeded())
    tiled = pipeline(**pair, generator=seeded(), tile=32, overlap=8)  # a quarter of the overlap: two pixels
    for name in PICTURES:
        torch.testing.assert_close(tiled[name], whole[name], rtol=0, atol=1e-5)
    assert (pipeline(**pair, generator=seeded(), tile=32, overlap=0).fused - whole.fused).abs().max() > 1e-2


def test_a_tile_as_large_as_the_picture_changes_nothing() -> None:
    pipeline, pair = make(), inputs(1, 40, 30)
    whole, tiled = (pipeline(**pair, generator=seeded(), tile=tile).fused for tile in (None, 40))
    assert torch.equal(whole, tiled)


def steepest(difference: Tensor) -> float:
    """Return the largest step between neighbours of what tiles changed: a seam is a step, a change of tone is none."""
    return max(float(difference.diff(dim=dim).abs().max()) for dim in (-1, -2))


def test_tiles_leave_no_seams_where_norms_see_a_tile_alone() -> None:
    pipeline = make()
    scene = fb.data.synthetic_scene(3, height=96, width=96)
    mask = (scene.mask > 0).float()[None, None]
    pair = {"infrared": scene.infrared[None], "visible": scene.visible[None], "infrared_mask": mask}
    whole, blended, cut = (
        pipeline(**pair, visible_mask=mask, generator=seeded(), tile=tile, overlap=overlap).fused
        for tile, overlap in ((None, None), (64, 32), (64, 0))
    )
    assert steepest(blended - whole) < steepest(cut - whole) / 3
    assert (blended - whole).abs().mean() < 0.01


def test_tiles_and_slices_bound_the_memory() -> None:
    pipeline = make()

    def peak(size: int, batch: int = 1, **options: Any) -> int:
        pair = inputs(batch, size, size)
        return peak_bytes(lambda: pipeline(**pair, strength=1 / 8, generator=seeded(), **options))

    peak(64)  # what is made once
    whole, tiled, larger = peak(192), peak(192, tile=64), peak(256, tile=64)
    assert tiled < whole / 3
    a_dozen_pictures = 12 * 3 * 4 * (256**2 - 192**2)  # the pair, the noise, what is blended: all that grows
    assert larger - tiled < a_dozen_pictures
    together = peak(64, batch=4)
    pipeline.enable_slicing()
    assert peak(64, batch=4) < together / 2


def test_slices_of_the_batch_are_the_batch() -> None:
    pipeline, pair = make(), inputs(3)
    together = pipeline(**pair, generator=seeded())
    seen: list[int] = []
    pipeline.denoiser.conv_in.register_forward_pre_hook(lambda _module, given: seen.append(given[0].shape[0]))
    pipeline.enable_slicing(2)
    sliced = pipeline(**pair, generator=seeded())
    assert seen == [2, 1] * 3
    for name in PICTURES:
        torch.testing.assert_close(sliced[name], together[name], rtol=0, atol=1e-5)
    pipeline.disable_slicing()
    pipeline(**pair)
    assert seen[6:] == [3] * 3
    with pytest.raises(ValueError, match="pictures"):
        pipeline.enable_slicing(0)


def test_an_offloaded_denoiser_is_fetched_before_each_pass() -> None:
    pipeline, pair = make(), inputs(1)
    fetched: list[object] = []
    pipeline.denoiser._hf_hook = SimpleNamespace(pre_forward=fetched.append)  # as accelerate's offloading attaches
    pipeline(**pair)
    assert fetched == [pipeline.denoiser] * 3


# --- bad input -----------------------------------------------------------------------------------------------------


def changed(name: str, change: Callable[[Tensor], object]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda pair: {**pair, name: change(pair[name])}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (changed("infrared_mask", lambda mask: 255 * mask), ValueError, r"infrared_mask.*\[0, 1\].*255"),
        (changed("visible_mask", lambda mask: mask - 0.5), ValueError, r"visible_mask.*\[0, 1\].*-0\.5"),
        (changed("visible_mask", lambda mask: mask[..., :-1]), ValueError, r"visible_mask.*\(2, 1, 21, 30\)"),
        (changed("infrared_mask", lambda mask: mask[:1]), ValueError, r"infrared_mask.*batch"),
        (changed("infrared_mask", lambda mask: mask.bool()), TypeError, "infrared_mask"),
        (changed("infrared_mask", lambda _: None), ValueError, "needs infrared_mask"),
        (changed("infrared", lambda picture: picture * float("nan")), ValueError, "infrared.*NaN"),
        (changed("visible", lambda picture: 255 * picture), ValueError, r"visible.*\[0, 1\]"),
        (changed("visible", lambda picture: picture[..., :-1]), ValueError, "21x30 and 21x29"),
        (lambda pair: {**pair, "output_type": "jpg"}, ValueError, "output_type.*'pil'.*'jpg'"),
        (lambda pair: {**pair, "num_inference_steps": 30}, ValueError, "divide 1000"),
        (lambda pair: {**pair, "num_inference_steps": 0}, ValueError, "steps"),
        (lambda pair: {**pair, "strength": 0.0}, ValueError, "strength"),
        (lambda pair: {**pair, "tile": 20}, ValueError, "tile must be a multiple of 8"),
        (lambda pair: {**pair, "tile": 32, "overlap": 20}, ValueError, "overlap"),
        (lambda pair: {**pair, "generator": [seeded()]}, ValueError, "generator"),
    ],
)
def test_bad_input_is_named_before_anything_is_computed(change, error, message) -> None:
    pipeline = make()
    pipeline.preliminary.forward = lambda *_: pytest.fail("computed before the input was checked")
    with pytest.raises(error, match=message):
        pipeline(**change(inputs()))


def test_wrong_parts_are_named() -> None:
    model = make_model()
    head = fb.HFAH(model.denoiser.feature_channels, hidden_channels=8)
    with pytest.raises(TypeError, match=r"head must be one of diffusers' models.*got HFAH"):
        fb.SGDFusePipeline(model.denoiser, model.preliminary, head, make_scheduler())
    with pytest.raises(TypeError, match="model must be an SGDFuse, got Laplacian"):
        fb.SGDFusePipeline.from_model(fb.Laplacian())
    with pytest.raises(ValueError, match="did you mean 'ddim'"):
        fb.SGDFusePipeline.from_model(model, "ddmi")
    with pytest.raises(ValueError, match=r"'epsilon'.*'v_prediction'"):
        fb.SGDFusePipeline.from_model(model, diffusers.DDIMScheduler(prediction_type="v_prediction"))
    pipeline = make()
    pipeline.scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    with pytest.raises(TypeError, match="FlowMatchEulerDiscreteScheduler"):
        pipeline(**inputs())
    for noisy in (torch.rand(2, 3, 21, 29), torch.rand(1, 3, 21, 30)):
        with pytest.raises(ValueError, match="infrared_mask must have the pair's batch and size"):
            make().denoise(noisy, **masks_of(inputs()))
