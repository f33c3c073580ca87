"""How SGDFuse refines a picture: noise added, then taken away step by step under the guidance of masks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from diffusers.utils.torch_utils import randn_tensor
from einops import rearrange
from torch import Tensor, nn

from fusionblocks.image import crop, pad_to_multiple
from fusionblocks.image.checks import check_picture
from fusionblocks.image.tiles import Parts, in_parts
from fusionblocks.models.sgdfuse.schedules import Sampling

# B batch, H and W the pair's size, h and w the next multiples that the U-Net can halve;
# a picture has values in [0, 1], a signed picture, as the diffusion sees it, in [-1, 1]

MASKS = ("infrared_mask", "visible_mask")
Generators = torch.Generator | Sequence[torch.Generator] | None
StepEnd = Callable[[int, float, Tensor, Tensor], Tensor]


class Sampled(NamedTuple):
    """What sampling ends in.

    Args:
        fused: The picture of the head, ``(B, 3, H, W)`` in [0, 1].
        denoised: The picture that the diffusion itself arrives at, ``(B, 3, H, W)`` in [0, 1].
    """

    fused: Tensor
    denoised: Tensor


def sample(
    denoiser: Any,
    head: nn.Module,
    walk: Sampling,
    noisy: Tensor,
    masks: Tensor,
    *,
    generators: list[torch.Generator],
    parts: Parts | None = None,
    on_step_end: StepEnd | None = None,
) -> Sampled:
    """Denoise a picture step by step; the last pass ends in the head.

    Args:
        denoiser: A :class:`~fusionblocks.NoiseConditionedUNet`.
        head: What makes a signed picture of the denoiser's features.
        walk: The scheduler and its steps.
        noisy: Noisy signed picture ``(B, 3, H, W)`` at the first of the walk's noise levels.
        masks: Segmentation of the infrared and of the visible picture ``(B, 2, H, W)`` in [0, 1].
        generators: A source of noise for each picture, of which samplers that add noise draw.
        parts: How each pass is cut to bound its memory; None: not at all.
        on_step_end: Called after each pass with its number, its timestep, the picture of the next, less noisy step
            (which after the last pass is the one that was seen) and the denoised picture in [0, 1], both
            ``(B, 3, h, w)``; returns the picture to go on with.
    """
    noisy, padding = pad_to_multiple(noisy, denoiser.size_multiple)  # (B, 3, h, w)
    masks, _ = pad_to_multiple(masks, denoiser.size_multiple)
    scheduler, timesteps, levels = walk
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    extra: dict[str, Any] = {"generator": generators} if takes_generator else {}
    # some schedulers keep the signal at full strength and scale it down for the network
    noisy = noisy / float(scheduler.scale_model_input(torch.ones(()), timesteps[0]))

    for number, (step, level) in enumerate(zip(timesteps, levels, strict=True)):
        is_last = number == len(timesteps) - 1
        seen = scheduler.scale_model_input(noisy, step)

        def one_pass(x: Tensor, masks: Tensor, level: float = level, is_last: bool = is_last) -> tuple[Tensor, ...]:
            x = torch.cat([x.to(masks.dtype), masks], dim=1)
            if is_last:
                return predict_and_fuse(denoiser, head, x, level_of(x, level))
            return (denoiser(x, level_of(x, level)),)

        noise, *fused = in_parts(one_pass, (seen, masks), parts or Parts(), denoiser.size_multiple)
        noise = noise.to(noisy.dtype)
        if not is_last:
            noisy = scheduler.step(noise, step, noisy, **extra, return_dict=False)[0]
        if is_last or on_step_end:
            denoised = _denoised(seen, noise, level)
        if on_step_end:
            noisy = on_step_end(number, step, noisy, denoised)
    return Sampled(crop(fused[0], padding), crop(denoised, padding).to(masks.dtype))


def predict_and_fuse(denoiser: Any, head: nn.Module, x: Tensor, noise_level: Tensor) -> tuple[Tensor, Tensor]:
    """Return the predicted noise ``(B, 3, h, w)`` and the fused picture in [0, 1] that one pass sees."""
    noise, features = denoiser.forward_features(x, noise_level)
    return noise, (head(features) + 1) / 2


def diffuse(picture: Tensor, noise_level: Tensor, noise: Tensor) -> Tensor:
    """Return a picture in [0, 1] as the diffusion sees it, signed and noisy, ``(B, 3, H, W)``."""
    level = rearrange(noise_level, "b -> b 1 1 1")
    return level * (2 * picture - 1) + (1 - level.square()).sqrt() * noise


def diffuse_at(picture: Tensor, level: float, generators: list[torch.Generator]) -> Tensor:
    """Return a picture diffused to one noise level by freshly drawn noise, in float32 at least."""
    picture = picture.to(torch.promote_types(picture.dtype, torch.float32))
    noise = randn_tensor(picture.shape, generator=generators, device=picture.device, dtype=torch.float32)
    return diffuse(picture, level_of(picture, level), noise).to(picture.dtype)


def level_of(like: Tensor, level: float) -> Tensor:
    """Return a noise level for each picture of a batch; in float32, since half precision would blur it."""
    return torch.full((like.shape[0],), level, dtype=torch.float32, device=like.device)


def one_for_each(generator: Generators, batch: int) -> list[torch.Generator]:
    """Return one generator for each picture, so that its noise depends on nothing else of the batch.

    They live on the CPU, where a seed gives the same noise for every device.
    """
    sources = [generator] * batch if generator is None or isinstance(generator, torch.Generator) else list(generator)
    if len(sources) != batch or not all(isinstance(g, torch.Generator | None) for g in sources):
        raise ValueError(f"generator must be one torch.Generator, or a list of {batch}, one for each picture")
    seeds = [torch.randint(2**62, (), generator=g, device=g.device if g else "cpu") for g in sources]
    return [torch.Generator().manual_seed(int(seed)) for seed in seeds]


def find_masks(
    guide: Callable[..., Any] | None,
    infrared: Tensor,
    visible: Tensor,
    infrared_mask: Tensor | None,
    visible_mask: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return the masks that were passed, and the guide's for those that were not; checked by name."""
    masks = dict(zip(MASKS, (infrared_mask, visible_mask), strict=True))
    missing = [name for name, mask in masks.items() if mask is None]
    if missing and not guide:
        raise ValueError(
            f"SGDFuse needs {' and '.join(missing)}, segmentation masks of shape (B, 1, H, W): pass "
            f"{'them' if len(missing) > 1 else 'it'}, or attach a guide that computes masks with "
            "attach_guidance(guide)"
        )
    guided: tuple[Any, Any] = guide(infrared, visible) if missing and guide else (None, None)
    found = [guide if mask is None else mask for mask, guide in zip(masks.values(), guided, strict=True)]
    for name, mask in zip(masks, found, strict=True):
        check_mask(name, mask, infrared)
    return found[0], found[1]


def check_mask(name: str, mask: Tensor, like: Tensor) -> None:
    """Raise unless a mask is a one-channel picture of a pair's batch and size."""
    check_picture(name, mask, 1)
    expected = (like.shape[0], 1, *like.shape[-2:])
    if mask.shape != expected:
        raise ValueError(
            f"{name} must have the pair's batch and size: expected shape {expected}, got {tuple(mask.shape)}"
        )


def _denoised(seen: Tensor, noise: Tensor, level: float) -> Tensor:
    """Return the picture in [0, 1] that is left when the predicted noise is taken away at once."""
    signed = (seen - (1 - level**2) ** 0.5 * noise) / level
    return ((signed + 1) / 2).clamp(0, 1)
