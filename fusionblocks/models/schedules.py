"""Noise schedules of diffusion networks and the samplers that walk them, by name."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from fusionblocks.models.base import closest

SCHEDULES = ("cosine", "linear")
SAMPLERS = ("ddim", "dpm-solver++", "published")
TRAINING_STEPS = 1000
PUBLISHED_STEPS = 60


def beta_schedule(name: str, steps: int, start: float = 1e-6, end: float = 1e-2) -> Tensor:
    """Return the noise variance that each diffusion step adds.

    Args:
        name: ``"linear"`` (from ``start`` to ``end``) or ``"cosine"`` (whose cumulative product is a squared cosine;
            ``start`` and ``end`` play no part).
        steps: Number of steps.
        start: Variance of the first step, in (0, 1).
        end: Variance of the last step, in [start, 1).

    Returns:
        Betas ``(steps,)`` in float64: at the first steps ``1 - alpha_bar`` is about 1e-6, which float32 blurs.

    Raises:
        ValueError: If the name is unknown, ``steps`` is no positive integer, or not ``0 < start <= end < 1``.

    Reference:
        *Denoising Diffusion Probabilistic Models* (2020) for linear, *Improved Denoising Diffusion Probabilistic
        Models* (2021) for cosine; *SGDFuse* (2025), function ``make_beta_schedule``.

    Example:
        >>> from fusionblocks.models.schedules import beta_schedule
        >>> beta_schedule("linear", 3, start=0.1, end=0.3)
        tensor([0.1000, 0.2000, 0.3000], dtype=torch.float64)
    """
    if name not in SCHEDULES:
        raise ValueError(f"unknown beta schedule {name!r}{closest(str(name), list(SCHEDULES))}; known: {SCHEDULES}")
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"steps must be a positive integer, got {steps!r}")
    if not 0 < start <= end < 1:
        raise ValueError(f"start and end must satisfy 0 < start <= end < 1, got start={start}, end={end}")
    if name == "linear":
        return torch.linspace(start, end, steps, dtype=torch.float64)
    offset, largest = 8e-3, 0.999  # the offset keeps the first betas away from 0, the limit the last away from 1
    time = torch.arange(steps + 1, dtype=torch.float64) / steps
    remaining = torch.cos((time + offset) / (1 + offset) * math.pi / 2).square()
    return (1 - remaining[1:] / remaining[:-1]).clamp(max=largest)


def noise_levels(betas: Tensor) -> Tensor:
    """Return the signal's share ``sqrt(alpha_bar)`` after each step, on which SGDFuse's U-Net is conditioned.

    Args:
        betas: Variances ``(steps,)``, from :func:`beta_schedule`.

    Returns:
        ``(steps,)``, falling from nearly 1 (hardly any noise) towards 0, in the dtype of ``betas``.

    Example:
        >>> from fusionblocks.models.schedules import beta_schedule, noise_levels
        >>> round(float(noise_levels(beta_schedule("linear", 1000))[-1]) ** 2, 4)
        0.0066
    """
    return torch.cumprod(1 - betas, dim=0).sqrt()


class Sampling(NamedTuple):
    """The walk of a sampler from noise to a picture.

    Args:
        scheduler: The diffusers scheduler whose ``step`` goes from one of ``timesteps`` to the next.
        timesteps: Steps of the schedule that are visited, the noisiest first.
        noise_levels: ``sqrt(alpha_bar)`` at each of them.
    """

    scheduler: Any
    timesteps: list[int]
    noise_levels: list[float]


def sampling(name: str = "ddim", steps: int = 25, strength: float = 1.0) -> Sampling:
    """Return a fresh sampler of SGDFuse.

    ``"ddim"`` and ``"dpm-solver++"`` draw their steps from the schedule of training, linear over 1000 steps, from its
    last step downwards ("trailing"). ``"published"`` is ancestral sampling over the linear schedule of 60 steps that
    the authors validate with; it ends at an ``alpha_bar`` of 0.74, noise that training passes at about step 245.

    Args:
        name: One of ``"ddim"``, ``"dpm-solver++"``, ``"published"``.
        steps: Steps from pure noise, at most 1000; DDIM needs a divisor of 1000. ``"published"`` has its own 60.
        strength: Share of the steps that is walked, the last ones, in (0, 1]; at least one step.

    Returns:
        The scheduler, the steps and their noise levels.

    Raises:
        ValueError: If the name is unknown, or a number is out of its range.

    Reference:
        *Denoising Diffusion Implicit Models* (2021); *DPM-Solver++* (2022); *Common Diffusion Noise Schedules and
        Sample Steps are Flawed* (2024) for trailing steps.

    Example:
        >>> from fusionblocks.models.schedules import sampling
        >>> sampling("ddim", steps=25, strength=0.16).timesteps
        [159, 119, 79, 39]
    """
    check_sampling(name, steps, strength)
    training_steps = PUBLISHED_STEPS if name == "published" else TRAINING_STEPS
    steps = PUBLISHED_STEPS if name == "published" else steps
    betas = beta_schedule("linear", training_steps)
    common = {"num_train_timesteps": training_steps, "trained_betas": betas.numpy()}
    timesteps = [round(training_steps * (steps - i) / steps) - 1 for i in range(steps)]
    begin = steps - max(1, round(strength * steps))

    if name == "dpm-solver++":
        scheduler = DPMSolverMultistepScheduler(**common)
        scheduler.set_timesteps(timesteps=timesteps)
        scheduler.set_begin_index(begin)
    else:
        scheduler = (DDIMScheduler if name == "ddim" else DDPMScheduler)(**common, timestep_spacing="trailing")
        scheduler.set_timesteps(steps)
        # the float32 table is 1 % off at the first steps, where 1 - alpha_bar is 1e-6
        scheduler.alphas_cumprod = torch.cumprod(1 - betas, dim=0)
    levels = noise_levels(betas)
    return Sampling(scheduler, timesteps[begin:], [float(levels[step]) for step in timesteps[begin:]])


def check_sampling(name: str, steps: int, strength: float) -> None:
    """Raise unless :func:`sampling` takes these arguments.

    Raises:
        ValueError: If the sampler's name is unknown, or a number is out of its range.
    """
    if name not in SAMPLERS:
        raise ValueError(f"unknown sampler {name!r}{closest(str(name), list(SAMPLERS))}; known: {', '.join(SAMPLERS)}")
    if not isinstance(steps, int) or isinstance(steps, bool) or not 1 <= steps <= TRAINING_STEPS:
        raise ValueError(f"the number of sampling steps must be an integer from 1 to {TRAINING_STEPS}, got {steps!r}")
    if name == "ddim" and TRAINING_STEPS % steps:
        raise ValueError(
            f"the number of sampling steps must divide {TRAINING_STEPS} for the sampler 'ddim', got {steps}; "
            "'dpm-solver++' takes any number"
        )
    if not 0 < strength <= 1:
        raise ValueError(f"strength must be in (0, 1], got {strength!r}")
