from __future__ import annotations

import diffusers
import pytest
import torch

from fusionblocks.models.sgdfuse.schedules import (
    SAMPLERS,
    beta_schedule,
    make_scheduler,
    noise_levels,
    sampling,
    scheduler_name,
    walk,
)
from tests.helpers.golden import load_case


@pytest.mark.parametrize(("name", "steps"), [("linear", 1000), ("linear", 60), ("cosine", 2000)])
def test_equals_the_published_schedule(name: str, steps: int) -> None:
    expected = load_case("sgd_schedules").outputs[f"{name}_{steps}_betas"]
    betas = beta_schedule(name, steps)
    assert betas.dtype == torch.float64
    torch.testing.assert_close(betas, expected, rtol=1e-12, atol=1e-15)


def test_noise_levels_fall_from_the_signal_to_the_noise() -> None:
    training, short = noise_levels(beta_schedule("linear", 1000)), noise_levels(beta_schedule("linear", 60))
    for levels in (training, short):
        assert (levels.diff() < 0).all()
        assert float(levels[0]) == pytest.approx((1 - 1e-6) ** 0.5, abs=1e-15)
    assert float(training[-1]) ** 2 == pytest.approx(0.0066, abs=5e-5)
    assert float(short[-1]) ** 2 == pytest.approx(0.74, abs=5e-3)


def test_cosine_betas_are_limited() -> None:
    betas = beta_schedule("cosine", 10)
    assert betas.min() > 0
    assert betas.max() == 0.999


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"linaer.*did you mean 'linear'"):
        beta_schedule("linaer", 10)
    for steps in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match="steps"):
            beta_schedule("linear", steps)
    for start, end in ((0.0, 0.5), (0.5, 0.1), (0.1, 1.0)):
        with pytest.raises(ValueError, match="start and end"):
            beta_schedule("linear", 10, start, end)


@pytest.mark.parametrize("name", ["ddim", "dpm-solver++"])
def test_samplers_draw_from_the_training_schedule(name: str) -> None:
    levels = noise_levels(beta_schedule("linear", 1000))
    walk = sampling(name, steps=25)
    assert walk.timesteps == list(range(999, 0, -40)) == walk.scheduler.timesteps.tolist()
    assert walk.noise_levels == [float(levels[step]) for step in walk.timesteps]
    part = sampling(name, steps=25, strength=0.25)
    assert part.timesteps == walk.timesteps[-6:]
    assert part.noise_levels[0] ** 2 == pytest.approx(0.75, abs=5e-3)
    assert sampling(name, steps=25, strength=1e-3).timesteps == [39]


def test_dpm_solver_takes_any_number_of_steps() -> None:
    for steps in (1, 30, 61, 103, 1000):
        walk = sampling("dpm-solver++", steps)
        assert len(walk.timesteps) == steps
        assert walk.timesteps[0] == 999
        assert walk.timesteps[-1] >= 0
        assert walk.timesteps == sorted(set(walk.timesteps), reverse=True) == walk.scheduler.timesteps.tolist()


@pytest.mark.parametrize(("name", "steps"), [("ddim", 8), ("dpm-solver++", 7), ("published", 60)])
@pytest.mark.parametrize("strength", [1.0, 0.3])
def test_samplers_return_the_picture_of_a_perfect_denoiser(name: str, steps: int, strength: float) -> None:
    torch.manual_seed(0)
    picture = torch.rand(1, 3, 4, 4) * 2 - 1
    scheduler, timesteps, levels = sampling(name, steps, strength)
    x = levels[0] * picture + (1 - levels[0] ** 2) ** 0.5 * torch.randn_like(picture)
    for step, level in zip(timesteps, levels, strict=True):
        noise = (x - level * picture) / (1 - level**2) ** 0.5
        x = scheduler.step(noise, step, x, generator=torch.Generator().manual_seed(step), return_dict=False)[0]
    torch.testing.assert_close(x, picture, rtol=1e-3, atol=2e-3)


def test_published_sampler_is_the_published_posterior() -> None:
    betas = beta_schedule("linear", 60)
    bar = torch.cumprod(1 - betas, 0)
    before = torch.cat([torch.ones(1, dtype=torch.float64), bar[:-1]])
    scheduler, timesteps, _ = sampling("published")
    assert timesteps == list(range(59, -1, -1))
    torch.manual_seed(0)
    x, noise = torch.randn(2, 3, 4, 4), 0.1 * torch.randn(2, 3, 4, 4)
    for t in (59, 30, 1, 0):
        start = ((x - (1 - bar[t]).sqrt() * noise) / bar[t].sqrt()).clamp(-1, 1)
        mean = betas[t] * before[t].sqrt() / (1 - bar[t]) * start
        mean = mean + (1 - before[t]) * (1 - betas[t]).sqrt() / (1 - bar[t]) * x
        deviation = (betas[t] * (1 - before[t]) / (1 - bar[t])).clamp(min=1e-20).sqrt()
        drawn = torch.randn(x.shape, generator=torch.Generator().manual_seed(t)) if t else torch.zeros_like(x)
        stepped = scheduler.step(noise, t, x, generator=torch.Generator().manual_seed(t), return_dict=False)[0]
        torch.testing.assert_close(stepped, (mean + deviation * drawn).float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("steps", [1000, 60])
def test_a_step_is_the_published_posterior_mean(steps: int) -> None:
    betas = beta_schedule("linear", steps)
    bar = torch.cumprod(1 - betas, 0)
    before = torch.cat([torch.ones(1, dtype=torch.float64), bar[:-1]])
    scheduler = diffusers.DDPMScheduler.from_config(make_scheduler("published").config, num_train_timesteps=steps)
    walk(scheduler, steps)
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    noise = 0.1 * torch.randn_like(x)
    for t in (0, 1, 2, 10, steps // 2, steps - 1):
        start = (x / bar[t].sqrt() - (1 / bar[t] - 1).sqrt() * noise).clamp(-1, 1)
        mean = betas[t] * before[t].sqrt() / (1 - bar[t]) * start
        mean = mean + (1 - before[t]) * (1 - betas[t]).sqrt() / (1 - bar[t]) * x
        deviation = (betas[t] * (1 - before[t]) / (1 - bar[t])).sqrt()
        drawn = torch.randn(x.shape, generator=torch.Generator().manual_seed(t), dtype=x.dtype) if t else 0 * x
        stepped = scheduler.step(noise, t, x, generator=torch.Generator().manual_seed(t), return_dict=False)[0]
        torch.testing.assert_close(stepped - deviation * drawn, mean, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_schedulers_have_names(name: str) -> None:
    scheduler = make_scheduler(name)
    assert scheduler_name(scheduler) == name
    assert scheduler_name(type(scheduler).from_config(scheduler.config, clip_sample_range=2.0, solver_order=3)) is None
    assert scheduler_name(diffusers.EulerDiscreteScheduler.from_config(scheduler.config)) is None


def test_levels_are_the_schedulers_own() -> None:
    scheduler = diffusers.DDIMScheduler(beta_start=1e-4, beta_end=2e-2, timestep_spacing="leading")
    steps = walk(scheduler, 30)  # evenly from 0, so any number will do
    assert steps.timesteps == scheduler.timesteps.tolist()
    assert steps.noise_levels == [float(scheduler.alphas_cumprod[t].sqrt()) for t in steps.timesteps]
    own = torch.linspace(1e-5, 3e-2, 1000).numpy()
    trained = walk(diffusers.DDIMScheduler(trained_betas=own, timestep_spacing="trailing"), 10)
    bar = torch.cumprod(1 - torch.from_numpy(own).double(), 0)
    assert trained.noise_levels == pytest.approx([float(bar[t].sqrt()) for t in trained.timesteps], rel=1e-12)


# the scale of what a scheduler keeps, order and fractional timesteps: all the kinds that diffusers has
KINDS = [
    "DDIM",
    "DDIMParallel",
    "DDPM",
    "DDPMParallel",
    "DEISMultistep",
    "DPMSolverMultistep",
    "DPMSolverSinglestep",
    "EulerAncestralDiscrete",
    "EulerDiscrete",
    "HeunDiscrete",
    "KDPM2AncestralDiscrete",
    "KDPM2Discrete",
    "LCM",
    "SASolver",
    "TCD",
    "UniPCMultistep",
]


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # NumPy 2's, for diffusers to follow
@pytest.mark.parametrize("strength", [1.0, 0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_any_scheduler_shows_the_network_what_its_noise_level_says(kind: str, strength: float) -> None:
    torch.manual_seed(0)
    scheduler = getattr(diffusers, f"{kind}Scheduler").from_config(make_scheduler().config)
    steps = walk(scheduler, 10, strength)
    picture, noise = 2 * torch.rand(1, 3, 64, 64) - 1, torch.randn(1, 3, 64, 64)
    level = steps.noise_levels[0]
    x = level * picture + (1 - level**2) ** 0.5 * noise
    x = x / float(scheduler.scale_model_input(torch.ones(()), steps.timesteps[0]))
    for step, level in zip(steps.timesteps, steps.noise_levels, strict=True):
        seen = scheduler.scale_model_input(x, step)
        found = (seen - level * picture) / (1 - level**2) ** 0.5  # what noise there is if the level is right
        assert float(found.std()) == pytest.approx(1, abs=0.05)
        assert abs(float((found * picture).mean())) < 0.03
        x = scheduler.step(found, step, x, return_dict=False)[0]
    # some end at the first step of the schedule, where the noise has a deviation of 1e-3
    torch.testing.assert_close(x, picture, rtol=0, atol=6e-3)


@pytest.mark.parametrize(
    ("scheduler", "error", "message"),
    [
        (diffusers.DDIMScheduler(prediction_type="v_prediction"), ValueError, "'epsilon'.*'v_prediction'"),
        (diffusers.DPMSolverMultistepScheduler(prediction_type="sample"), ValueError, "'epsilon'.*'sample'"),
        (diffusers.DDPMScheduler(variance_type="learned_range"), ValueError, "variance_type.*learned_range"),
        (diffusers.DDIMScheduler(rescale_betas_zero_snr=True), ValueError, "rescale_betas_zero_snr"),
        (diffusers.DDPMScheduler(trained_betas=[0.1] * 500), ValueError, "num_train_timesteps=1000.*500"),
        (diffusers.DPMSolverMultistepScheduler(use_flow_sigmas=True), ValueError, "flow"),
        (diffusers.DDIMInverseScheduler(), ValueError, "DDIMInverseScheduler walks to the noise"),
        (diffusers.PNDMScheduler(), ValueError, "begin at any step.*PNDM"),
        (diffusers.LMSDiscreteScheduler(), ValueError, "begin at any step.*LMS"),
        (diffusers.FlowMatchEulerDiscreteScheduler(), TypeError, "alphas_cumprod.*FlowMatchEuler"),
        (diffusers.EDMEulerScheduler(), TypeError, "alphas_cumprod.*EDMEuler"),
        (diffusers.RePaintScheduler(), TypeError, "RePaintScheduler wants"),
        ("ddim", TypeError, "got str"),
        (None, TypeError, "got NoneType"),
    ],
)
def test_unfit_schedulers_are_refused_by_name(scheduler, error, message) -> None:
    with pytest.raises(error, match=message):
        walk(scheduler, 10)


def test_a_step_below_the_first_is_refused() -> None:
    scheduler = diffusers.DDPMScheduler(timestep_spacing="trailing")
    with pytest.raises(ValueError, match=r"61 steps.*another number"):
        walk(scheduler, 61)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ddpm",), r"unknown sampler 'ddpm'.*published"),
        (("ddim", 0), "steps"),
        (("ddim", 30), "divide 1000"),
        (("dpm-solver++", 1001), "steps"),
        (("ddim", 25, 0.0), "strength"),
        (("ddim", 25, float("nan")), "strength"),
        (("ddim", 25, "half"), "strength"),
    ],
)
def test_sampling_refusals(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        sampling(*arguments)
