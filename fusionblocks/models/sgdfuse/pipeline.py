"""SGDFuse as a diffusers pipeline: any scheduler, saving, callbacks, and large pictures in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import DiffusionPipeline, ModelMixin, SchedulerMixin
from torch import Tensor

from fusionblocks.image.checks import check_pair, check_picture, check_values
from fusionblocks.image.tiles import Parts, check_parts, in_parts
from fusionblocks.models.base import evaluating
from fusionblocks.models.sgdfuse.network import AggregationHead, PreliminaryFusion, SGDFuse, network_of
from fusionblocks.models.sgdfuse.pictures import SGDFusePipelineOutput, check_output_type, converted
from fusionblocks.models.sgdfuse.sampling import (
    Generators,
    Sampled,
    check_mask,
    diffuse_at,
    find_masks,
    one_for_each,
    sample,
)
from fusionblocks.models.sgdfuse.schedules import (
    PUBLISHED_STEPS,
    SAMPLERS,
    check_scheduler,
    make_scheduler,
    scheduler_name,
    walk,
)
from fusionblocks.models.sgdfuse.unet import NoiseConditionedUNet

Callback = Callable[["SGDFusePipeline", int, float, dict[str, Tensor]], dict[str, Tensor] | None]


class SGDFusePipeline(DiffusionPipeline):
    """SGDFuse as a diffusers pipeline: a first fusion, diffused and denoised under the guidance of masks.

    It computes what :class:`~fusionblocks.SGDFuse` computes, from the same modules (:meth:`from_model` and
    :meth:`to_model` copy no weights), and adds what diffusers' users expect: any scheduler for networks that predict
    the noise, ``save_pretrained`` and ``from_pretrained``, a callback after every step, memory options.

    Args:
        denoiser: The U-Net.
        preliminary: Stage I.
        head: The aggregation head.
        scheduler: A diffusers scheduler over discrete steps with ``prediction_type="epsilon"``, as
            ``fusionblocks.models.make_scheduler`` makes by name. Assign another to ``pipeline.scheduler`` at any time.
        num_inference_steps: Steps from pure noise, of which ``strength`` is walked, unless a call says otherwise.
        strength: Share of the steps that refine the first fusion, in (0, 1], unless a call says otherwise.

    Raises:
        TypeError: If a module is not one of diffusers' models, or the scheduler is not over discrete steps.
        ValueError: If the scheduler wants another prediction than the noise.

    Reference:
        *SGDFuse: SAM-Guided Diffusion for High-Fidelity Infrared and Visible Image Fusion* (2025).

    Example:
        >>> import torch
        >>> from fusionblocks import SGDFuse, SGDFusePipeline
        >>> model = SGDFuse(channels=8, norm_groups=4, transformer_channels=8)
        >>> pipeline = SGDFusePipeline.from_model(model)
        >>> pipeline.set_progress_bar_config(disable=True)
        >>> infrared, visible, mask = torch.rand(1, 1, 20, 18), torch.rand(1, 3, 20, 18), torch.zeros(1, 1, 20, 18)
        >>> output = pipeline(infrared, visible, mask, mask, num_inference_steps=4, strength=0.5)
        >>> output.fused.shape, output.preliminary.shape
        (torch.Size([1, 3, 20, 18]), torch.Size([1, 3, 20, 18]))
    """

    model_cpu_offload_seq = "preliminary->denoiser->head"

    def __init__(
        self,
        denoiser: NoiseConditionedUNet,
        preliminary: PreliminaryFusion,
        head: AggregationHead,
        scheduler: SchedulerMixin,
        num_inference_steps: int = 25,
        strength: float = 0.25,
    ) -> None:
        super().__init__()
        for name, module in (("denoiser", denoiser), ("preliminary", preliminary), ("head", head)):
            if not isinstance(module, ModelMixin):
                raise TypeError(
                    f"{name} must be one of diffusers' models, which a pipeline can save, as SGDFuse.{name} is; "
                    f"got {type(module).__name__}"
                )
        check_scheduler(scheduler)
        self.register_modules(denoiser=denoiser, preliminary=preliminary, head=head, scheduler=scheduler)
        self.register_to_config(num_inference_steps=num_inference_steps, strength=strength)
        self._guide: tuple[Callable[..., Any], ...] = ()
        self._pictures_at_once: int | None = None

    @classmethod
    def from_model(cls, model: SGDFuse, scheduler: SchedulerMixin | str | None = None) -> Self:
        """Return a pipeline of a network's own modules and its guide.

        Args:
            model: The network.
            scheduler: A diffusers scheduler or the name of one of SGDFuse's; None: the one of ``model.config``.

        Returns:
            The pipeline. What is trained in the network is trained in the pipeline.

        Raises:
            TypeError: If ``model`` is not a :class:`~fusionblocks.SGDFuse`.
            ValueError: If the scheduler's name is unknown.
        """
        if not isinstance(model, SGDFuse):
            raise TypeError(f"model must be an SGDFuse, got {type(model).__name__}")
        name = model.config.sampler if scheduler is None else scheduler
        pipeline = cls(
            model.denoiser,
            model.preliminary,
            model.head,
            make_scheduler(name) if isinstance(name, str) else name,
            num_inference_steps=PUBLISHED_STEPS if name == "published" else model.config.num_inference_steps,
            strength=model.config.strength,
        )
        pipeline._guide = model._guide
        return pipeline

    def to_model(self) -> SGDFuse:
        """Return the network of the pipeline's own modules and its guide.

        Raises:
            ValueError: If the network's configuration has no name for the scheduler.
        """
        sampler = scheduler_name(self.scheduler)
        if sampler is None:
            raise ValueError(
                f"SGDFuse samples by {', '.join(map(repr, SAMPLERS))}; the pipeline's {type(self.scheduler).__name__} "
                "has other settings: assign fusionblocks.models.make_scheduler(name) to pipeline.scheduler first"
            )
        steps, strength = self.config["num_inference_steps"], self.config["strength"]
        model = network_of(self.preliminary, self.denoiser, self.head, sampler, steps, strength)
        model.attach_guidance(self._guide[0] if self._guide else None)
        return model

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options: Any) -> Self:
        """Return a pipeline that ``save_pretrained`` wrote.

        Args:
            folder: The folder, or a name on the Hugging Face hub.
            **options: As of ``diffusers.DiffusionPipeline.from_pretrained``. Weights are read rather than mapped
                (``disable_mmap=True``), since where they lie in memory decides the rounding of a convolution.

        Raises:
            ValueError: If a weight is missing or surplus; the message names it.
        """
        return super().from_pretrained(folder, **{"disable_mmap": True, **options})

    def attach_guidance(self, guide: Callable[..., Any] | None) -> None:
        """Let ``guide(infrared, visible)`` compute the masks that a call does not get; None detaches."""
        if guide is not None and not callable(guide):
            raise TypeError(f"guide must be callable, got {type(guide).__name__}")
        self._guide = () if guide is None else (guide,)

    def enable_slicing(self, pictures: int = 1) -> None:
        """Let so many pictures of a batch through the networks at once: slower, in less memory."""
        if not isinstance(pictures, int) or isinstance(pictures, bool) or pictures < 1:
            raise ValueError(f"pictures must be a positive integer, got {pictures!r}")
        self._pictures_at_once = pictures

    def disable_slicing(self) -> None:
        """Let whole batches through the networks again."""
        self._pictures_at_once = None

    def noise_levels(self, num_inference_steps: int | None = None, strength: float | None = None) -> list[float]:
        """Return the signal's share ``sqrt(alpha_bar)`` at each step that a call with these arguments walks."""
        return self._walk(num_inference_steps, strength).noise_levels

    @torch.no_grad()
    def diffuse(
        self,
        picture: Tensor,
        *,
        num_inference_steps: int | None = None,
        strength: float | None = None,
        generator: Generators = None,
    ) -> Tensor:
        """Return a picture with the noise of the first step, as :meth:`denoise` takes it.

        Args:
            picture: RGB picture ``(B, 3, H, W)`` in [0, 1].
            num_inference_steps: As in a call.
            strength: As in a call.
            generator: As in a call.

        Returns:
            Signed noisy picture ``(B, 3, H, W)``.
        """
        check_picture("picture", picture, 3)
        level = self._walk(num_inference_steps, strength).noise_levels[0]
        return diffuse_at(self._placed(picture), level, one_for_each(generator, picture.shape[0]))

    @torch.no_grad()
    def denoise(
        self,
        noisy: Tensor,
        infrared_mask: Tensor,
        visible_mask: Tensor,
        *,
        num_inference_steps: int | None = None,
        strength: float | None = None,
        generator: Generators = None,
        callback_on_step_end: Callback | None = None,
        output_type: str = "pt",
        tile: int | None = None,
        overlap: int | None = None,
    ) -> SGDFusePipelineOutput:
        """Denoise a given noisy picture; with a ``strength`` of one step it is a single pass.

        Args:
            noisy: Signed picture ``(B, 3, H, W)`` with the noise of the first step, as :meth:`diffuse` makes it:
                ``noise_levels(num_inference_steps, strength)[0]`` tells how much that is.
            infrared_mask: As in a call.
            visible_mask: As in a call.
            num_inference_steps: As in a call.
            strength: As in a call.
            generator: As in a call; only samplers that add noise draw of it.
            callback_on_step_end: As in a call.
            output_type: As in a call.
            tile: As in a call.
            overlap: As in a call.

        Returns:
            ``fused`` and ``denoised``.
        """
        check_picture("noisy", noisy, 3)
        check_output_type(output_type)
        parts = self._parts(tile, overlap)
        masks = self._masks(noisy, infrared_mask, visible_mask)
        generators = one_for_each(generator, noisy.shape[0])
        steps = num_inference_steps, strength
        sampled = self._sample(noisy.to(masks.device), masks, steps, generators, callback_on_step_end, parts)
        return SGDFusePipelineOutput(
            fused=converted(sampled.fused, output_type), denoised=converted(sampled.denoised, output_type)
        )

    @torch.no_grad()
    def __call__(
        self,
        infrared: Tensor,
        visible: Tensor,
        infrared_mask: Tensor | None = None,
        visible_mask: Tensor | None = None,
        *,
        num_inference_steps: int | None = None,
        strength: float | None = None,
        generator: Generators = None,
        callback_on_step_end: Callback | None = None,
        output_type: str = "pt",
        tile: int | None = None,
        overlap: int | None = None,
    ) -> SGDFusePipelineOutput:
        """Fuse a pair, of any size.

        Args:
            infrared: Infrared picture ``(B, 1, H, W)`` in [0, 1].
            visible: Visible RGB picture ``(B, 3, H, W)`` in [0, 1].
            infrared_mask: Segmentation of the infrared picture ``(B, 1, H, W)`` in [0, 1]. None asks the guide.
            visible_mask: Segmentation of the visible picture ``(B, 1, H, W)`` in [0, 1]. None asks the guide.
            num_inference_steps: Steps from pure noise, of which ``strength`` is walked. None: the pipeline's.
            strength: Share of the steps that refine the first fusion, in (0, 1]. None: the pipeline's.
            generator: Source of the noise, or one for each picture; None: PyTorch's global one.
            callback_on_step_end: Called as ``callback(pipeline, number, timestep, tensors)`` after each pass, with
                ``tensors["noisy"]``, the picture that the next pass will see, in the scheduler's scale, and
                ``tensors["denoised"]``, a preview in [0, 1]; both are padded to what the U-Net can halve. A dictionary
                that it returns may hold another ``"noisy"``.
            output_type: ``"pt"`` for float tensors ``(B, 3, H, W)`` in [0, 1], ``"np"`` for float arrays
                ``(B, H, W, 3)``, ``"pil"`` for a list of PIL pictures.
            tile: Side in pixels of the tiles in which large pictures go through the networks, a multiple of what the
                U-Net can halve. None: pictures go through whole.
            overlap: Pixels that neighbouring tiles share, at most half a tile; None: a quarter.

        Returns:
            ``fused``, ``preliminary`` and ``denoised``.

        Raises:
            TypeError: If a picture is not a float tensor, or the scheduler is not over discrete steps.
            ValueError: If a shape or a range is wrong, a mask is missing, or a number does not fit the scheduler.
        """
        check_pair(infrared, visible)
        check_values("infrared", infrared)
        check_values("visible", visible)
        check_output_type(output_type)
        parts = self._parts(tile, overlap)
        generators = one_for_each(generator, infrared.shape[0])
        steps = num_inference_steps, strength
        level = self._walk(*steps).noise_levels[0]
        infrared, visible = self._placed(infrared), self._placed(visible)
        guide = self._guide[0] if self._guide else None
        masks = self._masks(infrared, *find_masks(guide, infrared, visible, infrared_mask, visible_mask))

        with evaluating(self.preliminary):
            preliminary = in_parts(lambda *pair: (self.preliminary(*pair),), (infrared, visible), parts)[0]
        noisy = diffuse_at(preliminary, level, generators)  # of the whole picture at once, also for tiles
        sampled = self._sample(noisy, masks, steps, generators, callback_on_step_end, parts)
        pictures = {"fused": sampled.fused, "preliminary": preliminary, "denoised": sampled.denoised}
        return SGDFusePipelineOutput(**{name: converted(picture, output_type) for name, picture in pictures.items()})

    def _sample(
        self,
        noisy: Tensor,
        masks: Tensor,
        steps: tuple[int | None, float | None],
        generators: list[torch.Generator],
        callback: Callback | None,
        parts: Parts,
    ) -> Sampled:
        chosen = self._walk(*steps)
        bar = self.progress_bar(total=len(chosen.timesteps))

        def on_step_end(number: int, step: float, noisy: Tensor, denoised: Tensor) -> Tensor:
            bar.update()
            tensors = {"noisy": noisy, "denoised": denoised}
            return (callback(self, number, step, tensors) or tensors).get("noisy", noisy) if callback else noisy

        options: dict[str, Any] = {"generators": generators, "parts": parts, "on_step_end": on_step_end}
        with bar, evaluating(self.denoiser, self.head):
            sampled = sample(self.denoiser, self.head, chosen, noisy, masks, **options)
        self.maybe_free_model_hooks()
        return sampled

    def _walk(self, steps: int | None, strength: float | None) -> Any:
        return walk(
            self.scheduler,
            self.config["num_inference_steps"] if steps is None else steps,
            self.config["strength"] if strength is None else strength,
        )

    def _parts(self, tile: int | None, overlap: int | None) -> Parts:
        return Parts(*check_parts(tile, overlap, self.denoiser.size_multiple), self._pictures_at_once)

    def _masks(self, like: Tensor, infrared_mask: Tensor, visible_mask: Tensor) -> Tensor:
        """Return both masks as one tensor ``(B, 2, H, W)``, checked, where the networks are."""
        for name, mask in (("infrared_mask", infrared_mask), ("visible_mask", visible_mask)):
            check_mask(name, mask, like)
            check_values(name, mask)
        return torch.cat([self._placed(infrared_mask), self._placed(visible_mask)], dim=1)

    def _placed(self, picture: Tensor) -> Tensor:
        return picture.to(self._execution_device, self.denoiser.dtype)
