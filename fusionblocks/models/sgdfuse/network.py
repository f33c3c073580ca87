"""SGDFuse: a first fusion, refined by a diffusion network that segmentation masks guide."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from fusionblocks.image.checks import check_pair
from fusionblocks.models.base import FusionModel, FusionOutput, build_config, fusion_output
from fusionblocks.models.sgdfuse.sampling import (
    diffuse,
    diffuse_at,
    find_masks,
    one_for_each,
    predict_and_fuse,
    sample,
)
from fusionblocks.models.sgdfuse.schedules import check_sampling, sampling
from fusionblocks.models.sgdfuse.stages import AggregationHead, PreliminaryFusion
from fusionblocks.models.sgdfuse.unet import NoiseConditionedUNet


@dataclasses.dataclass(frozen=True)
class SGDFuseConfig:
    """Configuration of :class:`SGDFuse`; the defaults are the paper's values where its authors released them.

    Args:
        channels: Width of the U-Net's finest level.
        multipliers: Width of each level of the U-Net in units of ``channels``.
        layers_per_block: Residual blocks a level.
        norm_groups: Groups of the U-Net's group norms.
        dropout: Dropout probability in the U-Net.
        attention_levels: Levels that attend besides the middle. The published configuration asks for attention at
            16 pixels of a 160 pixel picture, a size that no level has.
        head_channels: Common width of the levels in the aggregation head.
        enhancement_channels: Width inside the stage I feature enhancement of each modality.
        transformer_channels: Width of the stage I transformer, a multiple of ``num_heads``.
        transformer_blocks: Transformer blocks of stage I.
        num_heads: Heads of each transformer block.
        sampler: ``"ddim"``, ``"dpm-solver++"`` or ``"published"``, see ``fusionblocks.models.sampling``.
        num_inference_steps: Steps from pure noise, of which ``strength`` is walked.
        strength: Share of the steps that refine the first fusion, in (0, 1]. A quarter starts at an ``alpha_bar`` of
            0.75, the noise that the authors' own schedule for sampling reaches; ``"published"`` wants 1.
    """

    channels: int = 64
    multipliers: tuple[int, ...] = (1, 2, 4, 8)
    layers_per_block: int = 2
    norm_groups: int = 32
    dropout: float = 0.2
    attention_levels: tuple[int, ...] = ()
    head_channels: int = 64
    enhancement_channels: int = 32
    transformer_channels: int = 64
    transformer_blocks: int = 2
    num_heads: int = 8
    sampler: str = "ddim"
    num_inference_steps: int = 25
    strength: float = 0.25


@fusion_output
class SGDFuseOutput(FusionOutput):
    """What :class:`SGDFuse` returns.

    Args:
        fused: The fused RGB picture ``(B, 3, H, W)`` in [0, 1].
        preliminary: The first stage's RGB picture ``(B, 3, H, W)`` in [0, 1], before refinement.
    """

    preliminary: Tensor | None = None


class SGDFuse(FusionModel):
    """SAM-guided diffusion: a first fusion is diffused and denoised under the guidance of segmentation masks.

    The authors released the U-Net, MSFEM and the aggregation head, but not how they are put together; this is one
    assembly of them. Stage I blends luma, so that even an untrained one keeps the pair's range, and takes over the
    visible chroma. The head *is* the end of the network, not a residual on the denoised picture: its hyperbolic
    tangent already spans a signed picture, and the decoder's features of the last, least noisy pass see that picture.

    The masks are arguments of the forward pass, or come from a guide that
    :meth:`~fusionblocks.FusionModel.attach_guidance` attaches: it is called with the infrared ``(B, 1, H, W)`` and the
    visible picture ``(B, 3, H, W)`` and returns the masks of both, each ``(B, 1, H, W)``.

    Training differentiates the parts: ``preliminary``, :meth:`diffuse` and :meth:`refine` (one denoising pass at
    any noise level, which yields both the predicted noise and the fused picture).

    Args:
        config: The network's configuration.
        **options: Fields of the configuration to replace.

    Raises:
        TypeError: If an option is not a field of the configuration.
        ValueError: If a field's value is out of its range.

    Reference:
        *SGDFuse: SAM-Guided Diffusion for High-Fidelity Infrared and Visible Image Fusion* (2025).

    Example:
        >>> import torch
        >>> from fusionblocks import SGDFuse
        >>> model = SGDFuse(channels=8, norm_groups=4, transformer_channels=8, num_inference_steps=4).eval()
        >>> infrared, visible, mask = torch.rand(1, 1, 20, 18), torch.rand(1, 3, 20, 18), torch.zeros(1, 1, 20, 18)
        >>> with torch.no_grad():
        ...     output = model(infrared, visible, mask, mask, generator=torch.Generator().manual_seed(0))
        >>> output.fused.shape, output.preliminary.shape
        (torch.Size([1, 3, 20, 18]), torch.Size([1, 3, 20, 18]))
    """

    name = "sgdfuse"
    whole_because: ClassVar[str] = (
        "its norms and its attention see all of the picture; SGDFusePipeline has tiles that blend"
    )
    config_class = SGDFuseConfig
    fused_channels = 3
    guidance_names = ("infrared_mask", "visible_mask")
    guides: ClassVar[Mapping[str, str]] = {"sam": "SAMMasks"}
    paper = "SGDFuse: SAM-Guided Diffusion for High-Fidelity Infrared and Visible Image Fusion (2025)"
    license_note = "the authors' repository states no licence"

    def __init__(self, config: SGDFuseConfig | None = None, **options: Any) -> None:
        super().__init__(config, **options)
        config = self.config
        check_sampling(config.sampler, config.num_inference_steps, config.strength)
        self.preliminary = PreliminaryFusion(
            config.transformer_channels,
            enhancement_channels=config.enhancement_channels,
            num_blocks=config.transformer_blocks,
            num_heads=config.num_heads,
        )
        self.denoiser = NoiseConditionedUNet(
            in_channels=3 + 2,  # the noisy picture and a mask of each modality
            out_channels=3,
            channels=config.channels,
            multipliers=config.multipliers,
            layers_per_block=config.layers_per_block,
            norm_groups=config.norm_groups,
            dropout=config.dropout,
            attention_levels=config.attention_levels,
        )
        self.head = AggregationHead(self.denoiser.feature_channels, 3, hidden_channels=config.head_channels)

    def forward(
        self,
        infrared: Tensor,
        visible: Tensor,
        infrared_mask: Tensor | None = None,
        visible_mask: Tensor | None = None,
        *,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
    ) -> SGDFuseOutput:
        """Fuse a pair.

        The same seed gives the same noise on every device, and the first picture of a batch the same as alone.

        Args:
            infrared: Infrared picture ``(B, 1, H, W)`` in [0, 1].
            visible: Visible RGB picture ``(B, 3, H, W)`` in [0, 1].
            infrared_mask: Segmentation of the infrared picture ``(B, 1, H, W)`` in [0, 1]. None asks the guide.
            visible_mask: Segmentation of the visible picture ``(B, 1, H, W)`` in [0, 1]. None asks the guide.
            generator: Source of the noise, or one for each picture; None: PyTorch's global one.

        Returns:
            ``fused`` and ``preliminary``, RGB pictures ``(B, 3, H, W)`` in [0, 1].

        Raises:
            TypeError: If an argument is not a float tensor.
            ValueError: If a shape is wrong, or a mask was not passed and no guide is attached.
        """
        config = self.config
        check_pair(infrared, visible)
        infrared_mask, visible_mask = find_masks(
            self._guide[0] if self._guide else None, infrared, visible, infrared_mask, visible_mask
        )
        masks = torch.cat([infrared_mask, visible_mask], dim=1).to(infrared.dtype)  # (B, 2, H, W)
        generators = one_for_each(generator, infrared.shape[0])

        # stage I: a first fusion, diffused to where sampling starts
        preliminary = self.preliminary(infrared, visible)
        walk = sampling(config.sampler, config.num_inference_steps, config.strength)
        noisy = diffuse_at(preliminary, walk.noise_levels[0], generators)

        # stage II: denoised step by step; the last pass ends in the head
        sampled = sample(self.denoiser, self.head, walk, noisy, masks, generators=generators)
        return SGDFuseOutput(fused=sampled.fused, preliminary=preliminary)

    def example_inputs(self, batch: int = 1, height: int = 32, width: int = 32) -> dict[str, Any]:
        """Return a drawn pair and masks, see :meth:`FusionModel.example_inputs`."""
        names = {"infrared": 1, "visible": 3, "infrared_mask": 1, "visible_mask": 1}
        return self._drawn(**{name: (batch, channels, height, width) for name, channels in names.items()})

    def diffuse(self, picture: Tensor, noise_level: Tensor, noise: Tensor) -> Tensor:
        """Return a picture as the diffusion sees it: signed, and noisy.

        Args:
            picture: RGB picture ``(B, 3, H, W)`` in [0, 1].
            noise_level: The signal's share ``sqrt(alpha_bar)`` of each, ``(B,)``, in [0, 1]: 1 adds no noise.
            noise: Standard normal ``(B, 3, H, W)``.

        Returns:
            ``(B, 3, H, W)``.
        """
        return diffuse(picture, noise_level, noise).to(picture.dtype)

    def refine(
        self, noisy: Tensor, noise_level: Tensor, infrared_mask: Tensor, visible_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the noise and the fused picture that one denoising pass sees.

        Args:
            noisy: Noisy signed picture ``(B, 3, H, W)``, H and W multiples of ``denoiser.size_multiple``.
            noise_level: The signal's share ``sqrt(alpha_bar)`` of each, ``(B,)``, in [0, 1].
            infrared_mask: Segmentation of the infrared picture ``(B, 1, H, W)`` in [0, 1].
            visible_mask: Segmentation of the visible picture ``(B, 1, H, W)`` in [0, 1].

        Returns:
            Predicted noise ``(B, 3, H, W)``, and the fused RGB picture ``(B, 3, H, W)`` in [0, 1].
        """
        x = torch.cat([noisy, infrared_mask, visible_mask], dim=1)
        return predict_and_fuse(self.denoiser, self.head, x, noise_level)


def network_of(
    preliminary: PreliminaryFusion,
    denoiser: NoiseConditionedUNet,
    head: AggregationHead,
    sampler: str,
    num_inference_steps: int,
    strength: float,
) -> SGDFuse:
    """Return the network whose parts these modules are; no weight is copied."""
    unet, stage, end = denoiser.config, preliminary.config, head.config
    names = ("channels", "multipliers", "layers_per_block", "norm_groups", "dropout", "attention_levels")
    options = {
        **{name: unet[name] for name in names},
        "head_channels": end["hidden_channels"],
        "enhancement_channels": stage["enhancement_channels"],
        "transformer_channels": stage["channels"],
        "transformer_blocks": stage["num_blocks"],
        "num_heads": stage["num_heads"],
        "sampler": sampler,
        "num_inference_steps": num_inference_steps,
        "strength": strength,
    }
    config = build_config(SGDFuseConfig, None, options)  # which makes tuples of a loaded configuration's lists
    with torch.device("meta"):  # these weights are exchanged at once
        model = SGDFuse(config)
    model.preliminary, model.denoiser, model.head = preliminary, denoiser, head
    model.training = denoiser.training
    return model
