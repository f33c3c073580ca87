"""PSFusion: fusion into which a segmentation branch injects what it knows of the scene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import timm
import torch
from timm.models.resnet import ResNet
from torch import Tensor, nn
from torch.nn import functional as F

from fusionblocks._support.checks import check_positive
from fusionblocks._support.names import closest
from fusionblocks.blocks.dsrm import DSRM
from fusionblocks.blocks.funnel_stem import FunnelStem
from fusionblocks.blocks.psfm import PSFM
from fusionblocks.blocks.s2p2 import S2P2
from fusionblocks.blocks.s2pm import S2PM
from fusionblocks.blocks.scene_fidelity import ImageHead, SceneFidelityPath
from fusionblocks.blocks.sdfm import SDFM
from fusionblocks.blocks.semantic_injection import SemanticInjection
from fusionblocks.image import check_pair, crop, pad_to_multiple
from fusionblocks.models.base import FusionModel, FusionOutput, fusion_output

# B batch, H and W the padded picture's size, a multiple of 32

STRIDE = 32
"""Pixels of the picture that one position of the encoders' deepest features stands for."""


@dataclass(frozen=True)
class PSFusionConfig:
    """Configuration of :class:`PSFusion`; the defaults are the paper's values.

    Args:
        num_classes: Classes of the segmentation.
        backbone: A timm ResNet, the trunk of either modality's encoder.
        backbone_channels: Widths of the trunk's four stages; None keeps the backbone's own.
        semantic_channels: Width of the fused deep features and of the segmentation branch.
        scene_channels: Width of the fused shallow features and of the branch that restores the scene.
        injection_channels: Hidden width of the semantic injections.
    """

    num_classes: int = 9
    backbone: str = "resnet34"
    backbone_channels: tuple[int, ...] | None = None
    semantic_channels: int = 64
    scene_channels: int = 32
    injection_channels: int = 32


class FunnelResNet(nn.Module):
    """A ResNet whose first convolution gives way to a funnel stem, which adds a full-resolution level.

    Args:
        in_channels: Channels of the picture.
        backbone: Name of a timm ResNet; it starts from random weights.
        backbone_channels: Widths of its four stages; None keeps its own.

    Raises:
        ValueError: If timm has no such ResNet, or the widths are not four positive integers.
    """

    def __init__(self, in_channels: int, backbone: str, *, backbone_channels: tuple[int, ...] | None = None) -> None:
        super().__init__()
        resnet = build_resnet(backbone, backbone_channels)
        width = resnet.bn1.num_features
        self.channels = [width // 2, width, *(stage["num_chs"] for stage in resnet.feature_info[1:])]
        self.stem = FunnelStem(in_channels, width)
        self.norm, self.act, self.maxpool = resnet.bn1, resnet.act1, resnet.maxpool
        self.stages = nn.ModuleList([resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4])

    def forward(self, picture: Tensor) -> list[Tensor]:
        """Return six levels of features, at 1, 1/2, 1/4, 1/8, 1/16 and 1/32 of the picture's size.

        Args:
            picture: A picture ``(B, in_channels, H, W)``.
        """
        full, half = self.stem(picture)
        levels = [full, self.act(self.norm(half))]
        x = self.maxpool(levels[-1])
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        return levels


@fusion_output
class PSFusionOutput(FusionOutput):
    """What :class:`PSFusion` returns.

    Args:
        fused: The fused luma ``(B, 1, H, W)``, about [0, 1].
        segmentation: Class logits ``(B, classes, H, W)``.
        binary: Background and foreground logits ``(B, 2, H, W)``.
        boundary: Interior and boundary logits ``(B, 2, H, W)``.
        visible: Reconstruction of the visible luma ``(B, 1, H, W)``.
        infrared: Reconstruction of the infrared image ``(B, 1, H, W)``.
    """

    segmentation: Tensor | None = None
    binary: Tensor | None = None
    boundary: Tensor | None = None
    visible: Tensor | None = None
    infrared: Tensor | None = None


def build_resnet(backbone: str, channels: tuple[int, ...] | None = None) -> ResNet:
    """Return a timm ResNet with random weights and no classifier, its four stages of other widths if asked for."""
    if not timm.is_model(backbone) or timm.model_entrypoint(backbone).__module__ != "timm.models.resnet":
        hint = closest(str(backbone), timm.list_models(module="resnet"))
        raise ValueError(f"backbone must be a ResNet of timm, got {backbone!r}{hint}")
    if channels is None:
        return timm.create_model(backbone, pretrained=False, num_classes=0)
    if len(channels) != 4:
        raise ValueError(f"backbone_channels must be four widths, got {channels!r}")
    check_positive(**{f"backbone_channels[{i}]": width for i, width in enumerate(channels)})
    return timm.create_model(backbone, pretrained=False, num_classes=0, channels=tuple(channels))


class PSFusion(FusionModel):
    """Progressive semantic injection and scene fidelity: one network segments, restores and fuses.

    ``fused`` is the luma of the fused picture; ``segmentation``, ``binary`` and ``boundary`` hold logits;
    ``visible`` (its luma) and ``infrared`` are the sources, restored from the features that ``fused`` is made of.
    A picture of any size is padded by reflection to a multiple of 32 and cropped back.

    The authors' checkpoint holds a dict with the weights under ``MTAN``. :func:`fusionblocks.load_official` ignores
    ``classfier.boundary_conv1`` and ``classfier.boundary_conv2``, which the authors' code never uses.

    Args:
        config: The network's configuration; its defaults are the paper's values.
        **options: Fields of the configuration to replace.

    Raises:
        TypeError: If an option is not a field of the configuration.
        ValueError: If a field's value is out of its range.

    Reference:
        "Rethinking the necessity of image fusion in high-level vision tasks: A practical infrared and visible image
        fusion network based on progressive semantic injection and scene fidelity", 2023 (published class ``PSF``).

    Example:
        >>> import torch
        >>> from fusionblocks import PSFusion
        >>> model = PSFusion(backbone="resnet18", backbone_channels=(8, 8, 8, 8), semantic_channels=8).eval()
        >>> output = model(torch.rand(1, 1, 40, 30), torch.rand(1, 3, 40, 30))
        >>> output.fused.shape, output.segmentation.shape
        (torch.Size([1, 1, 40, 30]), torch.Size([1, 9, 40, 30]))
    """

    name: ClassVar[str] = "psfusion"
    whole_because: ClassVar[str] = (
        "its trunk works at strides up to 32 and its attention looks from every place at every other"
    )
    config_class: ClassVar[type] = PSFusionConfig
    config: PSFusionConfig
    paper: ClassVar[str] = "Rethinking the necessity of image fusion in high-level vision tasks (2023)"
    license_note: ClassVar[str] = "the authors' repository states no licence for the network and its weights"

    def __init__(self, config: PSFusionConfig | None = None, **options: Any) -> None:
        super().__init__(config, **options)
        config = self.config
        semantic, scene, hidden = config.semantic_channels, config.scene_channels, config.injection_channels
        self.infrared_encoder = FunnelResNet(1, config.backbone, backbone_channels=config.backbone_channels)
        self.visible_encoder = FunnelResNet(3, config.backbone, backbone_channels=config.backbone_channels)
        full, half, *deep = self.visible_encoder.channels
        self.detail_fusion = nn.ModuleList([SDFM(full, scene), SDFM(half, scene), SDFM(deep[0], semantic)])
        self.semantic_fusion = nn.ModuleList(PSFM(width, semantic) for width in deep[1:])
        # sparse semantic perception
        self.laterals = nn.ModuleList(nn.Conv2d(semantic, semantic, 3, padding=1) for _ in deep)
        self.perception = S2PM(len(deep) * semantic, semantic)
        self.prediction = S2P2(semantic, config.num_classes)
        # scene restoration
        self.injections = nn.ModuleList(
            SemanticInjection(scene, source, hidden_channels=hidden) for source in (semantic, scene, semantic)
        )
        self.restoration = nn.ModuleList([DSRM(scene), DSRM(scene)])
        self.fused_head = ImageHead(scene)
        self.visible_path = SceneFidelityPath(scene)
        self.infrared_path = SceneFidelityPath(scene)

    def forward(self, infrared: Tensor, visible: Tensor) -> PSFusionOutput:
        """Fuse a pair.

        Args:
            infrared: ``(B, 1, H, W)`` in [0, 1].
            visible: ``(B, 3, H, W)`` RGB in [0, 1].

        Returns:
            The fused luma, the logits and both restored sources, all of the pair's size.

        Raises:
            TypeError: If an input is not a floating-point tensor.
            ValueError: If shapes, batch sizes or picture sizes do not fit.
        """
        check_pair(infrared, visible)
        infrared, padding = pad_to_multiple(infrared, STRIDE)
        visible, _ = pad_to_multiple(visible, STRIDE)

        # details are fused at 1, 1/2 and 1/4 of the picture's size, semantics at 1/8, 1/16 and 1/32
        levels = self.infrared_encoder(infrared), self.visible_encoder(visible)
        fusions = (*self.detail_fusion, *self.semantic_fusion)
        # a level is freed once it is fused
        fused = [fuse(infrared=levels[0].pop(0), visible=levels[1].pop(0)) for fuse in fusions]

        # sparse semantic perception, at 1/4
        semantic = self._perceived(fused[2:])
        logits = ("segmentation", "binary", "boundary")
        predicted = self.prediction(semantic) if self.wants(*logits) else (None, None, None)

        # scene restoration, at full size: semantics are injected progressively, from shallow to abstract ones
        scene = self.injections[0](fused[1], fused[2])
        scene = self.injections[1](fused[0], scene)
        del fused
        scene = self.restoration[0](scene)
        scene = self.injections[2](scene, semantic)
        scene = self.restoration[1](scene)

        output = PSFusionOutput(
            fused=self.fused_head(scene),
            **dict(zip(logits, predicted, strict=True)),
            visible=self.visible_path(scene) if self.wants("visible") else None,
            infrared=self.infrared_path(scene) if self.wants("infrared") else None,
        )
        return output.map(lambda x: crop(x, padding))

    def _perceived(self, fused: list[Tensor]) -> Tensor:
        """Return the semantic features ``(B, semantic_channels, H / 4, W / 4)`` of the fused levels from 1/4 on."""
        laterals = [lateral(x) for lateral, x in zip(self.laterals, fused, strict=True)]
        return self.perception(torch.cat([resize_like(x, laterals[0]) for x in laterals], dim=1))


def resize_like(x: Tensor, reference: Tensor) -> Tensor:
    """Return ``x`` at the size of ``reference``, bilinearly, corner pixels on corner pixels."""
    return F.interpolate(x, size=reference.shape[-2:], mode="bilinear", align_corners=True)
