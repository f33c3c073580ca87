from __future__ import annotations

import functools
import gc
import warnings
import weakref

import pytest
import torch
from torch import Tensor, nn

import fusionblocks as fb
from fusionblocks.models.sgdfuse import checkpoint as layout
from fusionblocks.models.sgdfuse.schedules import beta_schedule, noise_levels
from tests.helpers.golden import load_case, rule_weight
from tests.helpers.model_tester import ModelTester

SMALL = {
    "channels": 16,
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


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@fb.models.fusion_output
class WithNoise(fb.models.SGDFuseOutput):
    noise: Tensor | None = None


class TestSGDFuse(ModelTester):
    name = "sgdfuse"
    small = SMALL
    compiles = False

    def guidance(self, batch: int, height: int, width: int) -> dict[str, Tensor]:
        return {name: torch.rand(batch, 1, height, width).round() for name in ("infrared_mask", "visible_mask")}

    def run(self, model: fb.FusionModel, **inputs: Tensor) -> fb.FusionOutput:
        with torch.no_grad():
            return model(**inputs, generator=seeded())

    def training_output(self, model: fb.SGDFuse, **inputs: Tensor) -> fb.FusionOutput:
        preliminary = model.preliminary(inputs["infrared"], inputs["visible"])
        level = torch.tensor([0.9, 0.6])
        noisy = model.diffuse(preliminary, level, torch.randn_like(preliminary))
        noise, fused = model.refine(noisy, level, inputs["infrared_mask"], inputs["visible_mask"])
        return WithNoise(fused=fused, preliminary=preliminary, noise=noise)

    def test_pictures_are_within_range(self) -> None:
        model, inputs = self.make(), self.inputs(2, 21, 30)
        for parameter in model.parameters():
            parameter.data.mul_(3)
        output = self.run(model, **inputs)
        for picture in (output.fused, output.preliminary):
            assert picture.shape == (2, 3, 21, 30)
            assert picture.min() >= 0
            assert picture.max() <= 1

    def test_tiny_pictures(self) -> None:
        model = self.make()
        for size in ((1, 1), (3, 17)):
            assert self.run(model, **self.inputs(1, *size)).fused.shape == (1, 3, *size)

    @pytest.mark.parametrize("sampler", ["ddim", "dpm-solver++", "published"])
    def test_the_seed_decides(self, sampler: str) -> None:
        torch.manual_seed(0)
        steps = {"strength": 0.05} if sampler == "published" else {}
        model = fb.create_model("sgdfuse", **{**SMALL, **steps, "sampler": sampler}).eval()
        inputs = self.inputs(1, 16, 24)
        with torch.no_grad():
            first, again, other = (model(**inputs, generator=seeded(seed)).fused for seed in (0, 0, 1))
            torch.manual_seed(5)
            unseeded = model(**inputs).fused
            torch.manual_seed(5)
            assert torch.equal(model(**inputs).fused, unseeded)
        assert torch.isfinite(first).all()
        assert torch.equal(first, again)
        assert (first - other).abs().max() > 1e-4
        assert (first - unseeded).abs().max() > 1e-4

    @pytest.mark.parametrize("sampler", ["ddim", "published"])
    def test_noise_is_independent_of_the_rest_of_the_batch(self, sampler: str) -> None:
        torch.manual_seed(0)
        model = fb.create_model("sgdfuse", **{**SMALL, "sampler": sampler, "strength": 0.05}).eval()
        inputs = self.inputs(3, 16, 20)
        with torch.no_grad():
            whole = model(**inputs, generator=seeded()).fused
            first = model(**{k: v[:1] for k, v in inputs.items()}, generator=seeded()).fused
            torch.testing.assert_close(whole[:1], first, rtol=1e-4, atol=1e-5)
            each = model(**inputs, generator=[seeded(i) for i in range(3)]).fused
            last = model(**{k: v[2:] for k, v in inputs.items()}, generator=seeded(2)).fused
            torch.testing.assert_close(each[2:], last, rtol=1e-4, atol=1e-5)

    def test_wrong_generators_are_refused(self) -> None:
        model, inputs = self.make(), self.inputs(2, 16, 16)
        for wrong in ([seeded()], [seeded(), 1]):
            with pytest.raises(ValueError, match="generator"):
                model(**inputs, generator=wrong)

    def test_every_input_matters(self) -> None:
        model, inputs = self.make(), self.inputs(1, 16, 16)
        fused = self.run(model, **inputs).fused
        for name, tensor in inputs.items():
            changed = self.run(model, **{**inputs, name: 1 - tensor}).fused
            assert (changed - fused).abs().max() > 1e-4, f"{name} does not matter"

    def test_missing_masks_are_asked_of_the_guide_or_refused(self) -> None:
        model, inputs = self.make(), self.inputs(2, 16, 24)
        pair = {name: inputs[name] for name in ("infrared", "visible")}
        with pytest.raises(ValueError, match=r"infrared_mask and visible_mask.*attach_guidance"):
            self.run(model, **pair)
        with pytest.raises(ValueError, match=r"needs visible_mask"):
            self.run(model, **pair, infrared_mask=inputs["infrared_mask"])

        class Guide(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.ones(1))

            def forward(self, infrared: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
                assert infrared.shape[1] == 1
                assert visible.shape[1] == 3
                return inputs["infrared_mask"], inputs["visible_mask"]

        before = [*model.state_dict()]
        model.attach_guidance(Guide())
        assert [*model.state_dict()] == before
        expected = self.run(model, **inputs).fused
        assert torch.equal(self.run(model, **pair).fused, expected)
        flipped = 1 - inputs["visible_mask"]
        passed = self.run(model, **pair, visible_mask=flipped).fused  # what is passed goes before the guide's
        assert torch.equal(passed, self.run(model, **{**inputs, "visible_mask": flipped}).fused)
        model.attach_guidance(None)
        with pytest.raises(ValueError, match="attach_guidance"):
            self.run(model, **pair)
        with pytest.raises(TypeError, match="guide"):
            model.attach_guidance("sam")

    def test_wrong_masks_are_refused_by_name(self) -> None:
        model, inputs = self.make(), self.inputs(2, 16, 24)
        for name in model.guidance_names:
            mask = inputs[name]
            for wrong in (mask[0], mask.repeat(1, 3, 1, 1), mask[..., :-1], mask[:1], mask.bool(), "mask"):
                with pytest.raises((ValueError, TypeError), match=name):
                    self.run(model, **{**inputs, name: wrong})

    def test_stage_one_keeps_the_luma_between_the_pair(self) -> None:
        model, inputs = self.make(), self.inputs(2, 19, 23)
        with torch.no_grad():
            blended = fb.image.luma(model.preliminary(inputs["infrared"], inputs["visible"]))
        gray = fb.image.luma(inputs["visible"])
        assert (blended >= torch.minimum(gray, inputs["infrared"]) - 1e-5).all()
        assert (blended <= torch.maximum(gray, inputs["infrared"]) + 1e-5).all()

    def test_diffuse_mixes_by_the_noise_level(self) -> None:
        model = self.make()
        picture, noise = torch.rand(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
        noisy = model.diffuse(picture, torch.tensor([1.0, 0.6]), noise)
        torch.testing.assert_close(noisy[0], 2 * picture[0] - 1)
        torch.testing.assert_close(noisy[1], 0.6 * (2 * picture[1] - 1) + 0.8 * noise[1])

    def test_passes_and_noise_levels_are_those_of_the_schedule(self) -> None:
        model, inputs = self.make(), self.inputs(1, 16, 16)
        seen: list[float] = []
        run = model.denoiser.forward_features
        model.denoiser.forward_features = lambda x, level: seen.append(float(level[0])) or run(x, level)
        self.run(model, **inputs)
        levels = noise_levels(beta_schedule("linear", 1000))
        assert seen == pytest.approx([float(levels[step]) for step in (374, 249, 124)], abs=1e-6)

    def test_no_graph_is_kept_without_gradients(self) -> None:
        model, inputs = self.make(), self.inputs(1, 16, 16)
        kept: list[weakref.ref[Tensor]] = []
        model.denoiser.conv_in.register_forward_hook(lambda _module, _inputs, out: kept.append(weakref.ref(out)))
        with torch.no_grad():
            output = model(**inputs, generator=seeded())
        gc.collect()
        assert len(kept) == 3
        assert not any(reference() is not None for reference in kept)
        assert not output.fused.requires_grad

    def test_stage_one_and_a_denoising_pass_compile_and_export(self) -> None:
        torch.compiler.reset()
        model = fb.create_model("sgdfuse", **SMALL, multipliers=(1, 2)).eval()
        inputs = self.inputs(2, 16, 24)

        class Pass(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = model

            def forward(self, noisy: Tensor, level: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
                return self.model.refine(noisy, level, a, b)

        masks = inputs["infrared_mask"], inputs["visible_mask"]
        for module, arguments in (
            (model.preliminary, (inputs["infrared"], inputs["visible"])),
            (Pass(), (torch.randn(2, 3, 16, 24), torch.rand(2), *masks)),
        ):
            with torch.no_grad():
                expected = module(*arguments)
                compiled = torch.compile(module, fullgraph=True, backend="aot_eager")(*arguments)
                exported = torch.export.export(module, arguments).module()(*arguments)
            for result in (compiled, exported):
                torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)

    def test_half_precision(self) -> None:
        model = self.make().to(torch.bfloat16)
        inputs = {name: tensor.to(torch.bfloat16) for name, tensor in self.inputs(1, 16, 16).items()}
        output = self.run(model, **inputs)
        assert output.fused.dtype == output.preliminary.dtype == torch.bfloat16
        assert torch.isfinite(output.fused).all()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"sampler": "dimm"}, "did you mean 'ddim'"),
            ({"num_inference_steps": 0}, "steps"),
            ({"num_inference_steps": 30}, r"divide 1000.*dpm-solver\+\+"),
            ({"strength": 0.0}, "strength"),
            ({"strength": 1.5}, "strength"),
            ({"channels": 10}, "norm_groups"),
            ({"attention_levels": (7,)}, "attention_levels"),
            ({"num_heads": 3}, "num_heads"),
        ],
    )
    def test_wrong_options_are_refused_by_name(self, options, message) -> None:
        with pytest.raises(ValueError, match=message):
            fb.create_model("sgdfuse", **{**SMALL, **options})


# the authors' checkpoint, at a small width: two layers a level, its keys and tables as their code saves them
WIDTH = {"channels": 8, "norm_groups": 4, "layers_per_block": 2, "attention_levels": (1,)}


@functools.cache
def published_shapes() -> dict[str, torch.Size]:
    return {key: tensor.shape for key, tensor in load_case("sgd_unet_full").state.items()}


def published() -> dict[str, Tensor]:
    """Return a checkpoint with the published network's keys, an eighth as wide."""
    state = {}
    for key, shape in published_shapes().items():
        narrow = [count if count in (3, 5) else count // 8 for count in shape[:2]]  # 3 + 2 channels in, 3 out
        state[f"denoise_fn.{key}"] = rule_weight(key, [*narrow, *shape[2:]])
    tables = (
        "betas alphas_cumprod alphas_cumprod_prev sqrt_alphas_cumprod sqrt_one_minus_alphas_cumprod "
        "log_one_minus_alphas_cumprod sqrt_recip_alphas_cumprod sqrt_recipm1_alphas_cumprod posterior_variance "
        "posterior_log_variance_clipped posterior_mean_coef1 posterior_mean_coef2"
    )
    return {**{table: torch.rand(1000) for table in tables.split()}, **state}


def load(checkpoint, **options) -> fb.FusionModel:
    return fb.load_official("sgdfuse", checkpoint, **{**SMALL, **WIDTH, **options})


def test_the_authors_checkpoint_loads_and_says_what_it_lacks(tmp_path) -> None:
    state = published()
    torch.save(state, tmp_path / "I10_E1_gen.pth")
    with pytest.warns(UserWarning, match=r"denoiser alone: head, preliminary.*random"):
        model = load(tmp_path / "I10_E1_gen.pth")
    assert not model.training
    own = model.denoiser.state_dict()
    for key, value in layout.convert({k: v for k, v in state.items() if k.startswith("denoise_fn.")}).items():
        assert torch.equal(own[key.removeprefix("denoiser.")], value), key
    qkv = state["denoise_fn.mid.0.attn.qkv.weight"].flatten(1)
    attention = model.denoiser.mid_block.attentions[0]
    assert torch.equal(torch.cat([attention.to_q.weight, attention.to_k.weight, attention.to_v.weight]), qkv)
    assert not attention.to_q.bias.any()


def test_the_tables_of_the_schedule_may_be_absent() -> None:
    with pytest.warns(UserWarning, match="denoiser"):
        load({key: value for key, value in published().items() if key.startswith("denoise_fn.")})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("denoise_fn.init_conv.weight"), r"1 missing: denoiser\.conv_in\.weight"),
        (lambda state: state.update({"denoise_fn.extra.weight": torch.zeros(1)}), r"surplus: denoiser\.extra\.weight"),
        (lambda state: state.update({"netD.weight": torch.zeros(1)}), r"surplus: netD\.weight"),
        (lambda state: state.update({"denoise_fn.init_conv.bias": torch.zeros(9)}), r"conv_in\.bias: expected \(8,\)"),
    ],
)
def test_loading_the_released_part_is_strict(change, message) -> None:
    state = published()
    change(state)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing was loaded, so nothing is said about the other parts
        with pytest.raises(ValueError, match=message):
            load(state)


def test_other_attention_levels_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"surplus: denoiser\.down_blocks\.1\.attentions"):
        load(published(), attention_levels=())


def test_other_files_are_not_claimed() -> None:
    assert layout.unwrap({"encoder.weight": torch.zeros(1)}) is None
    assert layout.unwrap({"denoise_fn": {"a": torch.zeros(1)}}) is None
    assert layout.unwrap({}) is None
    with pytest.raises(ValueError, match="not a checkpoint of 'sgdfuse'"):
        load({"encoder.weight": torch.zeros(1)})
