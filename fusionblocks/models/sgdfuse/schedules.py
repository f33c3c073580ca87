"""Noise schedules of diffusion networks and the samplers that walk them, by name."""

from __future__ import annotations

import inspect
import math
from typing import Any, NamedTuple

import torch
from diffusers import (
    DDIMParallelScheduler,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
)
from torch import Tensor

from fusionblocks._support.names import closest

SCHEDULES = ("cosine", "linear")
SAMPLERS = ("ddim", "dpm-solver++", "published")
TRAINING_STEPS = 1000
PUBLISHED_STEPS = 60
BETA_START, BETA_END = 1e-6, 1e-2


def beta_schedule(name: str, steps: int, start: float = BETA_START, end: float = BETA_END) -> Tensor:
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
        ValueError: If the name is unknown, ``steps`` is not a positive integer, or not ``0 < start <= end < 1``.

    Reference:
        *Denoising Diffusion Probabilistic Models* (2020) for linear, *Improved Denoising Diffusion Probabilistic
        Models* (2021) for cosine; *SGDFuse* (2025), function ``make_beta_schedule``.

    Example:
        >>> from fusionblocks.models.sgdfuse.schedules import beta_schedule
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
        >>> from fusionblocks.models.sgdfuse.schedules import beta_schedule, noise_levels
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
    timesteps: list[float]
    noise_levels: list[float]


def make_scheduler(name: str = "ddim") -> Any:
    """Return a diffusers scheduler of SGDFuse by name.

    ``"ddim"`` and ``"dpm-solver++"`` draw their steps from the schedule of training, linear over 1000 steps, from its
    last step downwards ("trailing"). ``"published"`` is ancestral sampling over the linear schedule of 60 steps that
    the authors validate with; it ends at an ``alpha_bar`` of 0.74, noise that training passes at about step 245.

    Args:
        name: One of ``"ddim"``, ``"dpm-solver++"``, ``"published"``.

    Returns:
        A ``DDIMScheduler``, a ``DPMSolverMultistepScheduler`` or a ``DDPMScheduler``. Any other scheduler of diffusers
        takes its schedule over with ``from_config(scheduler.config)``.

    Raises:
        ValueError: If the name is unknown.

    Example:
        >>> from fusionblocks.models import make_scheduler
        >>> make_scheduler("published").config.num_train_timesteps
        60
    """
    _check_name(name)
    kind = {"ddim": DDIMScheduler, "dpm-solver++": DPMSolverMultistepScheduler, "published": DDPMScheduler}[name]
    return kind(
        num_train_timesteps=PUBLISHED_STEPS if name == "published" else TRAINING_STEPS,
        beta_schedule="linear",
        beta_start=BETA_START,
        beta_end=BETA_END,
        timestep_spacing="trailing",
    )


def scheduler_name(scheduler: Any) -> str | None:
    """Return the name by which :func:`make_scheduler` makes such a scheduler, None if it makes no such one."""

    def settings(scheduler: Any) -> dict[str, Any]:
        return {key: value for key, value in scheduler.config.items() if not key.startswith("_")}

    return next(
        (
            name
            for name, known in ((name, make_scheduler(name)) for name in SAMPLERS)
            if type(scheduler) is type(known) and settings(scheduler) == settings(known)
        ),
        None,
    )


def walk(scheduler: Any, steps: int, strength: float = 1.0) -> Sampling:
    """Set a scheduler's steps, and return those that are walked.

    Args:
        scheduler: A diffusers scheduler for networks that predict the noise; its timesteps are set.
        steps: Steps from pure noise, at most as many as its schedule has.
        strength: Share of the steps that is walked, the last ones, in (0, 1]; at least one step.

    Returns:
        The scheduler, the steps and their noise levels, from the scheduler's own ``alphas_cumprod``.

    Raises:
        TypeError: If ``scheduler`` is not a scheduler of a diffusion over discrete steps.
        ValueError: If it wants another prediction than the noise, or a number is out of its range.

    Example:
        >>> from fusionblocks.models import make_scheduler
        >>> from fusionblocks.models.sgdfuse.schedules import walk
        >>> walk(make_scheduler("dpm-solver++"), steps=25, strength=0.16).timesteps
        [159, 119, 79, 39]
    """
    check_scheduler(scheduler)
    check_steps(scheduler, steps, strength)
    _sharpen(scheduler)
    if _takes_exact_steps(scheduler):  # diffusers' own trailing steps end at -1 for some numbers of steps
        total = len(scheduler.alphas_cumprod)
        scheduler.set_timesteps(timesteps=[round(total * (steps - i) / steps) - 1 for i in range(steps)])
    else:
        scheduler.set_timesteps(steps)
    begin = (steps - max(1, round(strength * steps))) * scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    timesteps = scheduler.timesteps[begin:].tolist()
    if not timesteps or timesteps[-1] < 0:
        raise ValueError(f"{type(scheduler).__name__} cannot make {steps} steps, its last is -1: take another number")
    if timesteps[0] < timesteps[-1]:
        raise ValueError(f"scheduler must walk from noise to a picture; {type(scheduler).__name__} walks to the noise")
    return Sampling(scheduler, timesteps, [_level_at(scheduler, step) for step in timesteps])


def sampling(name: str = "ddim", steps: int = 25, strength: float = 1.0) -> Sampling:
    """Return a fresh sampler of SGDFuse, see :func:`make_scheduler` for the names.

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
        >>> from fusionblocks.models.sgdfuse.schedules import sampling
        >>> sampling("ddim", steps=25, strength=0.16).timesteps
        [159, 119, 79, 39]
    """
    check_sampling(name, steps, strength)
    return walk(make_scheduler(name), PUBLISHED_STEPS if name == "published" else steps, strength)


def check_sampling(name: str, steps: int, strength: float) -> None:
    """Raise unless :func:`sampling` takes these arguments.

    Raises:
        ValueError: If the sampler's name is unknown, or a number is out of its range.
    """
    _check_name(name)
    _check_steps(TRAINING_STEPS, steps, strength, evenly=name == "ddim")


def check_steps(scheduler: Any, steps: int, strength: float) -> None:
    """Raise unless a scheduler can make so many steps.

    Raises:
        ValueError: If a number is out of its range.
    """
    # DDIM goes down by a fixed number of timesteps
    evenly = isinstance(scheduler, DDIMScheduler | DDIMParallelScheduler)
    evenly = evenly and scheduler.config.timestep_spacing != "leading"
    _check_steps(len(scheduler.alphas_cumprod), steps, strength, evenly)


def _check_name(name: str) -> None:
    if name not in SAMPLERS:
        raise ValueError(f"unknown sampler {name!r}{closest(str(name), list(SAMPLERS))}; known: {', '.join(SAMPLERS)}")


def _check_steps(total: int, steps: int, strength: float, evenly: bool) -> None:
    if not isinstance(steps, int) or isinstance(steps, bool) or not 1 <= steps <= total:
        raise ValueError(f"the number of sampling steps must be an integer from 1 to {total}, got {steps!r}")
    if evenly and total % steps:
        raise ValueError(
            f"the number of sampling steps must divide {total} for the sampler 'ddim', got {steps}; "
            "'dpm-solver++' takes any number"
        )
    if isinstance(strength, bool) or not isinstance(strength, int | float) or not 0 < strength <= 1:
        raise ValueError(f"strength must be in (0, 1], got {strength!r}")


def check_scheduler(scheduler: Any) -> None:
    """Raise unless a scheduler can steer a network that predicts the noise and is told ``sqrt(alpha_bar)``.

    Raises:
        TypeError: If it is not a scheduler of a diffusion over discrete steps.
        ValueError: If it wants another prediction than the noise, or its tables do not fit its settings.
    """
    name = type(scheduler).__name__
    methods = ("set_timesteps", "scale_model_input", "step")
    table = getattr(scheduler, "alphas_cumprod", None)
    if not isinstance(table, Tensor) or not all(callable(getattr(scheduler, method, None)) for method in methods):
        raise TypeError(
            "scheduler must be a diffusers scheduler over discrete steps, with alphas_cumprod "
            f"(DDIMScheduler, DPMSolverMultistepScheduler, ...), got {name}"
        )
    if isinstance(scheduler, PNDMScheduler | LMSDiscreteScheduler):  # these weigh steps that were never made
        raise ValueError(f"scheduler must be able to begin at any step, and {name} cannot")
    config = scheduler.config
    prediction = config.get("prediction_type", "epsilon")
    if prediction != "epsilon" or config.get("use_flow_sigmas"):
        got = "'flow sigmas'" if prediction == "epsilon" else repr(prediction)
        raise ValueError(f"scheduler must have prediction_type 'epsilon', as SGDFuse predicts the noise, got {got}")
    if str(config.get("variance_type", "")).startswith("learned"):
        raise ValueError(f"scheduler must have a fixed variance_type, got {config['variance_type']!r}")
    if config.get("rescale_betas_zero_snr"):
        raise ValueError("scheduler must keep some signal at every step, got rescale_betas_zero_snr=True")
    if len(table) != config["num_train_timesteps"]:
        raise ValueError(
            f"scheduler must have one beta for each of its num_train_timesteps={config['num_train_timesteps']}, "
            f"got {len(table)}"
        )
    required = [
        parameter.name
        for parameter in inspect.signature(scheduler.step).parameters.values()
        if parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    if len(required) > 3:  # of RePaint, ...
        raise TypeError(f"scheduler must step by a prediction, a timestep and a sample alone; {name} wants {required}")


def _takes_exact_steps(scheduler: Any) -> bool:
    respaced = ("use_karras_sigmas", "use_lu_lambdas", "use_exponential_sigmas", "use_beta_sigmas")
    config = scheduler.config
    return (
        isinstance(scheduler, DPMSolverMultistepScheduler)
        and config.timestep_spacing == "trailing"
        and not any(config.get(option) for option in respaced)
    )


def _sharpen(scheduler: Any) -> None:
    """Compute a scheduler's table in float64: float32 is 1 % off at the first steps, where 1 - alpha_bar is 1e-6."""
    if not isinstance(scheduler, DDIMScheduler | DDPMScheduler | DPMSolverMultistepScheduler):
        return
    config = scheduler.config
    if config.trained_betas is not None:
        betas = torch.as_tensor(config.trained_betas, dtype=torch.float64)
    elif config.beta_schedule == "linear":
        betas = beta_schedule("linear", config.num_train_timesteps, config.beta_start, config.beta_end)
    else:
        return
    scheduler.alphas_cumprod = torch.cumprod(1 - betas, dim=0)


def _level_at(scheduler: Any, step: float) -> float:
    """Return ``sqrt(alpha_bar)`` at a timestep; between two, the ratio of noise to signal is interpolated."""
    below = math.floor(step)
    share = step - below
    if not share:
        return float(scheduler.alphas_cumprod[below].double().sqrt())
    around = scheduler.alphas_cumprod[below : below + 2].double()
    ratio = ((1 - around) / around).sqrt()
    return float((1 + ((1 - share) * ratio[0] + share * ratio[1]).square()).rsqrt())
