"""SMFNet: base, detail and graph branches of each modality, fused branch by branch and decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from fusionblocks.blocks import (
    CAI,
    BaseFeatureExtraction,
    DetailFusion,
    GradientResidualDense,
    GraphReasoning,
    TransformerBlock,
)
from fusionblocks.blocks.graph_reasoning import GraphFeatures
from fusionblocks.image import check_pair, luma
from fusionblocks.models.base import FusionModel, FusionOutput, fusion_output, hand_over

# Shapes: B batch, C = config.channels, H W picture; no branch changes the resolution


@dataclass(frozen=True)
class SMFNetConfig:
    """Configuration of :class:`SMFNet`; the defaults are the paper's values.

    Args:
        channels: Width ``C`` of all features, a multiple of ``2 * num_heads`` and of 4.
        num_heads: Heads of every channel attention.
        base_layers: Residual groups of the base branch.
        base_depth: Pairs of transformer blocks in a residual group.
        detail_layers: Affine couplings that fuse the detail features.
        dilations: Dilation of each node of the modality graphs, two or more.
        graph_iterations: Rounds of message passing in each graph.
    """

    channels: int = 64
    num_heads: int = 8
    base_layers: int = 2
    base_depth: int = 2
    detail_layers: int = 2
    dilations: tuple[int, ...] = (4, 8, 16)
    graph_iterations: int = 2


class Branches(NamedTuple):
    """What the encoder makes of one picture.

    Args:
        base: Base features ``(B, C, H, W)``: what both modalities share, over long ranges.
        detail: Detail features ``(B, C, H, W)``: what is particular to the modality.
        shallow: Shallow features ``(B, C, H, W)``, from which graph reasoning starts.
    """

    base: Tensor
    detail: Tensor
    shallow: Tensor


class Reconstruction(NamedTuple):
    """Both inputs rebuilt from their own features.

    Args:
        infrared: ``(B, 1, H, W)`` in [0, 1].
        visible: Luma ``(B, 1, H, W)`` in [0, 1].
    """

    infrared: Tensor
    visible: Tensor


class Encoder(nn.Module):
    """Shallow transformer, then a base branch beside a detail branch.

    Args:
        config: The network's configuration.
    """

    def __init__(self, config: SMFNetConfig) -> None:
        super().__init__()
        channels, heads = config.channels, config.num_heads
        self.embed = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.transformer = TransformerBlock(channels, num_heads=heads)
        self.base = BaseFeatureExtraction(
            channels, num_heads=heads, num_layers=config.base_layers, depth=config.base_depth
        )
        self.gradient_dense = GradientResidualDense(channels)
        self.detail = CAI(channels, num_heads=heads)

    def forward(self, picture: Tensor) -> Branches:
        """Decompose a picture ``(B, 1, H, W)``."""
        shallow = self.transformer(self.embed(picture))
        return Branches(base=self.base(shallow), detail=self.detail(self.gradient_dense(shallow)), shallow=shallow)


class Decoder(nn.Module):
    """Transformer and three convolutions, from features to a picture.

    Args:
        config: The network's configuration.
    """

    def __init__(self, config: SMFNetConfig) -> None:
        super().__init__()
        channels = config.channels
        self.transformer = TransformerBlock(channels, num_heads=config.num_heads)
        self.head = nn.Sequential(
            nn.Conv2d(channels, channels // 2, 3, padding=1, bias=False),
            nn.LeakyReLU(),
            nn.Conv2d(channels // 2, channels // 4, 3, padding=1, bias=False),
            nn.LeakyReLU(),
            nn.Conv2d(channels // 4, 1, 3, padding=1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Decode features ``(B, C, H, W)`` to a picture ``(B, 1, H, W)`` in [0, 1]."""
        return self.head(self.transformer(features))


@fusion_output
class SMFNetOutput(FusionOutput):
    """What :class:`SMFNet` returns.

    Args:
        fused: The fused luma ``(B, 1, H, W)``, about [0, 1].
        features: Named feature maps of both modalities, each ``(B, C, H, W)``; None where they are not wanted.
    """

    features: dict[str, Tensor] | None = None


class SMFNet(FusionModel):
    """SMFNet: correlation-driven base and detail features, and graph features reasoned across modalities.

    One encoder serves both modalities, one decoder both training phases. ``output.fused`` is the fused luma as the
    decoder emits it (the authors' script stretches it to its own minimum and maximum), ``output.features`` holds
    ``base_*``, ``detail_*`` and ``graph_*`` of ``infrared`` and ``visible``.

    Args:
        config: Its configuration.
        **options: Fields of :class:`SMFNetConfig` to replace.

    Raises:
        TypeError: If an option is unknown.
        ValueError: If the channels cannot be split as the options ask.

    Reference:
        "A Semantic-Aware and Multi-Guided Network for Infrared-Visible Image Fusion", 2025 (published classes
        ``Restormer_Encoder``, ``Restormer_Decoder``, ``BaseFeatureExtraction``, ``DetailFeatureExtraction`` and
        ``CGR_backbone``).

    Example:
        >>> import torch
        >>> from fusionblocks import SMFNet
        >>> model = SMFNet(channels=16, num_heads=4, base_layers=1, base_depth=1).eval()
        >>> output = model(infrared=torch.rand(1, 1, 20, 24), visible=torch.rand(1, 3, 20, 24))
        >>> output.fused.shape
        torch.Size([1, 1, 20, 24])
    """

    name: ClassVar[str] = "smfnet"
    whole_because: ClassVar[str] = "its channel attention takes statistics of the whole picture in many blocks"
    config_class: ClassVar[type] = SMFNetConfig
    config: SMFNetConfig
    fused_channels: ClassVar[int] = 1
    paper: ClassVar[str] = "A Semantic-Aware and Multi-Guided Network for Infrared-Visible Image Fusion (2025)"
    license_note: ClassVar[str] = "the authors' code and weights come without a licence"

    def __init__(self, config: SMFNetConfig | None = None, **options: Any) -> None:
        super().__init__(config, **options)
        config = self.config
        channels = config.channels
        self.encoder = Encoder(config)
        self.graph_reasoning = GraphReasoning(channels, dilations=config.dilations, iterations=config.graph_iterations)
        self.base_fusion = TransformerBlock(channels, num_heads=config.num_heads)
        self.detail_fusion = DetailFusion(channels, num_layers=config.detail_layers)
        self.decoder = Decoder(config)

    def forward(self, infrared: Tensor, visible: Tensor) -> FusionOutput:
        """Fuse a pair.

        Args:
            infrared: ``(B, 1, H, W)`` in [0, 1].
            visible: ``(B, 3, H, W)`` RGB or ``(B, 1, H, W)`` luma in [0, 1].

        Returns:
            The fused luma ``(B, 1, H, W)`` and the features of both modalities, each ``(B, C, H, W)``.
        """
        thermal, bright = self.encode(infrared, visible)
        features = {
            "base_infrared": thermal.base,
            "base_visible": bright.base,
            "detail_infrared": thermal.detail,
            "detail_visible": bright.detail,
        }
        shallow = [thermal.shallow, bright.shallow]
        del thermal, bright
        # what the output does not hold is freed once it is fused
        take = features.__getitem__ if self.wants("features") else features.pop
        detail = self.detail_fusion(take("detail_infrared") + take("detail_visible"))
        fused = detail + self.base_fusion(take("base_infrared") + take("base_visible"))
        del detail
        graph = hand_over(self.graph_reasoning, shallow)
        if self.wants("features"):
            features |= {"graph_infrared": graph.infrared, "graph_visible": graph.visible}
        return SMFNetOutput(fused=self.decoder(fused + graph.fused), features=features or None)

    def reconstruct(self, infrared: Tensor, visible: Tensor) -> Reconstruction:
        """Rebuild both inputs, each from its own three branches (phase I of the paper's training).

        Args:
            infrared: ``(B, 1, H, W)`` in [0, 1].
            visible: ``(B, 3, H, W)`` RGB or ``(B, 1, H, W)`` luma in [0, 1].

        Returns:
            The rebuilt infrared image and visible luma, each ``(B, 1, H, W)``.
        """
        # a copy in less precision is called from outside its forward pass here
        given, own = infrared.dtype, next(self.parameters()).dtype
        thermal, bright, graph = self.decompose(infrared.to(own), visible.to(own))
        return Reconstruction(
            infrared=self.decoder(thermal.detail + thermal.base + graph.infrared).to(given),
            visible=self.decoder(bright.detail + bright.base + graph.visible).to(given),
        )

    def decompose(self, infrared: Tensor, visible: Tensor) -> tuple[Branches, Branches, GraphFeatures]:
        """Return the branches of the infrared and of the visible image, and their graph features."""
        thermal, bright = self.encode(infrared, visible)
        return thermal, bright, self.graph_reasoning(thermal.shallow, bright.shallow)

    def encode(self, infrared: Tensor, visible: Tensor) -> tuple[Branches, Branches]:
        """Return the branches of the infrared and of the visible image."""
        check_pair(infrared, visible, visible_channels=(1, 3))
        return self.encoder(infrared), self.encoder(luma(visible) if visible.shape[1] == 3 else visible)
