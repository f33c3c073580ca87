from __future__ import annotations

import pytest
import torch

from fusionblocks.models.schedules import beta_schedule, noise_levels, sampling
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ddpm",), r"unknown sampler 'ddpm'.*published"),
        (("ddim", 0), "steps"),
        (("ddim", 30), "divide 1000"),
        (("dpm-solver++", 1001), "steps"),
        (("ddim", 25, 0.0), "strength"),
        (("ddim", 25, float("nan")), "strength"),
    ],
)
def test_sampling_refusals(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        sampling(*arguments)
