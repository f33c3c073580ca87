"""SGAFusion: fusion that is guided by a CLIP embedding and undoes haze and darkness on the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from einops import repeat
from torch import Tensor, nn

from fusionblocks._support.checks import check_positive
from fusionblocks.blocks.clip_query_attention import CLIPQueryAttention
from fusionblocks.blocks.degradation_experts import DegradationExperts
from fusionblocks.blocks.mixture_of_experts import MixtureOfExperts
from fusionblocks.image.checks import check_pair
from fusionblocks.models.base import FusionModel, FusionOutput, fusion_output

# B batch, H and W the picture's size at every depth (nothing is down-sampled), C channels of the first stage,
# S width of the semantic embedding


@dataclasses.dataclass(frozen=True)
class SGAFusionConfig:
    """Configuration of :class:`SGAFusion`; the defaults are the paper's values.

    Args:
        channels: Channels of the first encoder stage; each of the next three doubles them.
        num_classes: Classes of the segmentation head.
        num_experts: Experts of every mixture but the degradation experts.
        semantic_channels: Width of the semantic embedding.
        num_heads: Heads of the semantic attention.
        query: ``"image"`` (as released: pixels ask the embedding) or ``"semantic"`` (as drawn: the embedding asks
            the pixels).
    """

    channels: int = 16
    num_classes: int = 9
    num_experts: int = 2
    semantic_channels: int = 512
    num_heads: int = 2
    query: str = "image"


def moe_block(in_channels: int, out_channels: int, num_experts: int, negative_slope: float) -> nn.Sequential:
    """Return the figure's MoE block: a 3x3 convolution, a leaky ReLU and a mixture of experts."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1),
        nn.LeakyReLU(negative_slope),
        MixtureOfExperts(out_channels, num_experts=num_experts),
    )


class DegradationAwareEncoder(nn.Module):
    """The encoder that both modalities share; degraded pictures take the degradation experts as well.

    Args:
        channels: Channels of the first stage; each of the next three doubles them.
        num_experts: Experts of each later stage.

    Raises:
        ValueError: If an argument is not a positive integer.
    """

    def __init__(self, channels: int = 16, *, num_experts: int = 2) -> None:
        super().__init__()
        check_positive(channels=channels, num_experts=num_experts)
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.LeakyReLU())
        self.degradation = DegradationExperts(channels)
        self.stages = nn.ModuleList(
            moe_block(channels * 2**i, channels * 2 ** (i + 1), num_experts, negative_slope=0.01) for i in range(3)
        )

    def forward(self, picture: Tensor, *, degraded: bool, last: int = 4) -> list[Tensor]:
        """Return the features of the stages, the first stage's first.

        Args:
            picture: A picture ``(B, 3, H, W)``.
            degraded: Whether the degradation experts act on the first stage.
            last: How many of the last stages' features to return; the others are freed on the way.

        Returns:
            Features ``(B, channels * 2**i, H, W)`` for ``i`` from ``4 - last`` to 3.
        """
        x = self.stem(picture)
        x = self.degradation(x) if degraded else x
        features = [x]
        for stage in self.stages:
            x = stage(x)
            features = [*features, x][-last:]
        return features


@fusion_output
class SGAFusionOutput(FusionOutput):
    """What :class:`SGAFusion` returns.

    Args:
        fused: The fused RGB picture ``(B, 3, H, W)``, about [0, 1].
        segmentation: Class logits ``(B, classes, H, W)``; None where they are not wanted.
    """

    segmentation: Tensor | None = None


class SGAFusion(FusionModel):
    """Semantic-guided adaptive fusion: a CLIP embedding of the visible picture steers the fusion of both.

    ``fused`` is an RGB picture; ``segmentation`` holds class logits. The embedding is an argument of the forward
    pass, or comes from a guide that :meth:`~fusionblocks.FusionModel.attach_guidance` attaches: it is called with the
    visible picture ``(B, 3, H, W)`` and returns ``(B, semantic_channels)``, or ``(B, T, semantic_channels)`` for
    several tokens. ``create_model("sgafusion", guidance="clip")`` builds and attaches the guide of the paper.

    Args:
        config: The network's configuration; its defaults are the paper's values.
        **options: Fields of the configuration to replace.

    Raises:
        TypeError: If an option is not a field of the configuration.
        ValueError: If a field's value is out of its range.

    Reference:
        SGAFusion: Semantic-Guided Adaptive Fusion for Infrared-Visible Images Under Degradation Conditions (2025),
        class ``ResNetSegmentationModelWithMoE``.

    Example:
        >>> import torch
        >>> from fusionblocks import SGAFusion
        >>> model = SGAFusion(channels=4, semantic_channels=8)
        >>> output = model(torch.rand(1, 1, 9, 7), torch.rand(1, 3, 9, 7), semantic=torch.rand(1, 8))
        >>> output.fused.shape, output.segmentation.shape
        (torch.Size([1, 3, 9, 7]), torch.Size([1, 9, 9, 7]))
    """

    name = "sgafusion"
    whole_because: ClassVar[str] = "its dehazing expert averages over the whole picture"
    config_class = SGAFusionConfig
    fused_channels = 3
    guidance_names = ("semantic",)
    guides: ClassVar[Mapping[str, str]] = {"clip": "CLIPDegradationClassifier"}
    expert_passes: ClassVar[Mapping[str, tuple[str, ...]]] = {"encoder": ("visible", "infrared")}
    paper = "SGAFusion: Semantic-Guided Adaptive Fusion for Infrared-Visible Images Under Degradation Conditions (2025)"
    license_note = "the authors' code is MIT-licensed; CLIP's weights have their own licence"

    def __init__(self, config: SGAFusionConfig | None = None, **options: Any) -> None:
        super().__init__(config, **options)
        config = self.config
        check_positive(num_classes=config.num_classes)
        shallow, deep = config.channels * 4, config.channels * 8
        self.encoder = DegradationAwareEncoder(config.channels, num_experts=config.num_experts)
        self.semantic_attention = CLIPQueryAttention(
            deep, semantic_channels=config.semantic_channels, num_heads=config.num_heads, query=config.query
        )
        self.decoder = nn.Sequential(
            moe_block(2 * deep, deep, config.num_experts, negative_slope=0.2),
            moe_block(deep, shallow, config.num_experts, negative_slope=0.2),
        )
        self.segmentation_head = nn.Conv2d(shallow, config.num_classes, 1)
        self.fusion_head = nn.Conv2d(shallow, 3, 3, padding=1)

    def guidance_example(self, infrared: Tensor) -> dict[str, Tensor]:
        """Return an embedding of zeros for each picture."""
        return {"semantic": infrared.new_zeros(len(infrared), self.config.semantic_channels)}

    def forward(self, infrared: Tensor, visible: Tensor, semantic: Tensor | None = None) -> SGAFusionOutput:
        """Fuse a pair.

        Args:
            infrared: Infrared picture ``(B, 1, H, W)`` in [0, 1].
            visible: Visible RGB picture ``(B, 3, H, W)`` in [0, 1].
            semantic: CLIP embedding of the visible picture ``(B, semantic_channels)``, or several tokens
                ``(B, T, semantic_channels)``. None asks the attached guide.

        Returns:
            ``fused`` ``(B, 3, H, W)`` and ``segmentation`` ``(B, num_classes, H, W)``.

        Raises:
            TypeError: If an argument is not a float tensor.
            ValueError: If a shape is wrong, or no embedding was passed and no guide is attached.
        """
        check_pair(infrared, visible)
        semantic = self._semantic(visible, semantic)

        # one encoder for both; only the visible picture suffers from haze and darkness
        skip, both = self.encoder(visible, degraded=True, last=2)
        from_infrared = self.encoder(repeat(infrared, "b 1 h w -> b 3 h w"), degraded=False, last=2)
        skip, both = skip + from_infrared[0], both + from_infrared[1]  # (B, 4C, H, W) and (B, 8C, H, W)
        del from_infrared

        # selective skip connection: the third stage of both joins what is decoded, (B, 4C, H, W)
        decoded = self.decoder[1](self._decoded_guided(both, semantic)) + skip
        segmentation = self.segmentation_head(decoded) if self.wants("segmentation") else None
        return SGAFusionOutput(fused=self.fusion_head(decoded), segmentation=segmentation)

    def _decoded_guided(self, both: Tensor, semantic: Tensor) -> Tensor:
        """Return what the decoder's first block makes of both pictures' features beside what the embedding says."""
        return self.decoder[0](torch.cat([self.semantic_attention(both, semantic), both], dim=1))

    def ask_guide(self, infrared: Tensor, visible: Tensor) -> dict[str, Any]:
        """Return the guide's embedding of the visible picture, see :meth:`FusionModel.ask_guide`."""
        return {"semantic": self._guide[0](visible)} if self._guide else {}

    def guide_options(self) -> dict[str, Any]:
        """Return the width of the embedding, see :meth:`FusionModel.guide_options`."""
        return {"embedding_channels": self.config.semantic_channels}

    def example_inputs(self, batch: int = 1, height: int = 32, width: int = 32) -> dict[str, Any]:
        """Return a drawn pair and embedding, see :meth:`FusionModel.example_inputs`."""
        pair = {"infrared": (batch, 1, height, width), "visible": (batch, 3, height, width)}
        return self._drawn(**pair, semantic=(batch, self.config.semantic_channels))

    def _semantic(self, visible: Tensor, semantic: Tensor | None) -> Tensor:
        """Return the embedding that was passed, or the attached guide's."""
        width = self.config.semantic_channels
        if semantic is None:
            if not self._guide:
                raise ValueError(
                    f"SGAFusion needs semantic, a CLIP embedding of visible of shape (B, {width}): pass it, or attach "
                    "a guide that computes it with model.attach_guidance(guide)"
                )
            semantic = self._guide[0](visible)
        if not isinstance(semantic, Tensor):
            raise TypeError(f"semantic must be a tensor of shape (B, {width}), got {type(semantic).__name__}")
        if semantic.ndim not in (2, 3) or semantic.shape[-1] != width or semantic.shape[0] != visible.shape[0]:
            raise ValueError(
                f"semantic must have shape ({visible.shape[0]}, {width}) or ({visible.shape[0]}, T, {width}), "
                f"got {tuple(semantic.shape)}"
            )
        return semantic
