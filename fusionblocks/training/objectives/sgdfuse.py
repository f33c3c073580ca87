"""SGDFuse's phases: a first fusion, the diffusion that refines it, and the head that ends it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fusionblocks.models.sgdfuse.schedules import beta_schedule, noise_levels, sampling
from fusionblocks.training.objectives.base import Batch, Inputs, Objective, guidance_of


class Preliminary(Objective):
    """Stage I: both modalities are enhanced and blended.

    Args:
        network: A :class:`fusionblocks.SGDFuse`.
        losses: Weights of the terms by name.
        loss_options: Options of the terms by name.
    """

    def predict(self, batch: Batch) -> Inputs:
        return {"fused": self.fuse(self.network, batch)}

    def fuse(self, network: nn.Module, batch: Batch) -> Tensor:
        return network.preliminary(batch["infrared"], batch["visible"])  # type: ignore[operator]


class Diffusion(Objective):
    """The denoiser predicts the noise in a diffused first fusion, guided by the masks.

    The noise level is drawn as in training SR3: a step of the schedule, then evenly between its two levels.

    Args:
        network: A :class:`fusionblocks.SGDFuse`.
        losses: Weights of the terms by name.
        loss_options: Options of the terms by name.
        schedule: Name of the noise schedule.
        steps: Its steps.
    """

    validates = False  # the head, which ends the network, has not learned yet
    weights = {"noise": 1.0}

    def __init__(
        self,
        network: nn.Module,
        losses: Mapping[str, float] | None = None,
        loss_options: Mapping[str, Mapping[str, Any]] | None = None,
        schedule: str = "linear",
        steps: int = 1000,
    ) -> None:
        super().__init__(network, losses, loss_options)
        levels = noise_levels(beta_schedule(schedule, steps)).float()
        self.register_buffer("levels", torch.cat([torch.ones(1), levels]), persistent=False)

    def predict(self, batch: Batch) -> Inputs:
        with torch.no_grad():
            picture = self.network.preliminary(batch["infrared"], batch["visible"])
        masks = guidance_of(self.network, batch)
        level = self.draw_levels(len(picture))
        noise = torch.randn_like(picture, dtype=torch.float32)
        noisy = self.network.diffuse(picture.float(), level, noise)
        x = torch.cat([noisy, masks["infrared_mask"], masks["visible_mask"]], dim=1)
        return {"noise_prediction": self.network.denoiser(x, level), "noise": noise}

    def draw_levels(self, number: int) -> Tensor:
        """Return a signal's share ``sqrt(alpha_bar)`` for each picture, ``(B,)``."""
        levels: Any = self.levels
        step = torch.randint(1, len(levels), (number,), device=levels.device)
        return torch.lerp(levels[step - 1], levels[step], torch.rand(number, device=levels.device))


class Head(Objective):
    """The head makes the fused picture of the denoiser's features, as the last, least noisy pass sees them.

    Args:
        network: A :class:`fusionblocks.SGDFuse`.
        losses: Weights of the terms by name.
        loss_options: Options of the terms by name.
    """

    def predict(self, batch: Batch) -> Inputs:
        network = self.network
        with torch.no_grad():
            picture = network.preliminary(batch["infrared"], batch["visible"]).float()
        config = network.config
        least = sampling(config.sampler, config.num_inference_steps, config.strength).noise_levels[-1]
        level = torch.empty(len(picture), device=picture.device).uniform_(least, 1)
        noisy = network.diffuse(picture, level, torch.randn_like(picture))
        _, fused = network.refine(noisy, level, **guidance_of(network, batch))
        return {"fused": fused}
