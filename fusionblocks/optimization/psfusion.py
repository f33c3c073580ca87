"""PSFusion's blocks in strips: what lies between the convolutions at full resolution never exists as a whole."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fusionblocks._support.checks import check_alike, check_features
from fusionblocks._support.modules import is_a
from fusionblocks.blocks.funnel_stem import FunnelStem
from fusionblocks.blocks.local_global_gate import LocalGlobalGate
from fusionblocks.blocks.reaching import in_a_row, reach, side_by_side
from fusionblocks.blocks.scene_fidelity import SceneFidelityPath, SceneMask
from fusionblocks.blocks.sdfm import SDFM, AdaptiveFusion
from fusionblocks.blocks.semantic_injection import SemanticInjection
from fusionblocks.models.psfusion.network import FunnelResNet, PSFusion
from fusionblocks.optimization.folding import affine, is_affine
from fusionblocks.optimization.fusing import gated, gated_merge, modulated, recalibrated
from fusionblocks.optimization.rewriting import Rewrite, frozen, is_convolution, like, rewrites
from fusionblocks.optimization.strips import in_strips, mean_in_strips, moments, pays


def pools_first(branch: nn.Module) -> bool:
    """Whether a branch takes the mean of its map and sees nothing else of it."""
    pool = branch[0] if is_a(branch, nn.Sequential) and len(branch) else None
    return is_a(pool, nn.AdaptiveAvgPool2d) and pool.output_size in (1, (1, 1))


@rewrites(FunnelStem)
class FastFunnelStem(Rewrite, FunnelStem):
    """Both convolutions at full resolution and their funnel activations in one sweep."""

    halo: int | None

    def prepare(self) -> None:
        """Find what the convolutions at full resolution see."""
        self.halo = reach(self.full_resolution)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of ``(B, in_channels, H, W)`` at full and at half resolution."""
        check_features("x", x, self.in_channels)
        full = in_strips(self.full_resolution, x, halo=self.halo, factor=4)
        return full, self.half_resolution(full.to(next(self.half_resolution.parameters(), full).dtype))


@rewrites(SDFM)
class FastSDFM(Rewrite, SDFM):
    """Each modality's convolutions in one sweep."""

    fusion: FastAdaptiveFusion
    halos: tuple[int, int]

    @classmethod
    def fits(cls, module: Any) -> bool:
        """Both modalities' convolutions have a reach, and the fusion is made fast too."""
        return (
            None not in (reach(module.infrared), reach(module.visible))
            and is_a(module.fusion, AdaptiveFusion)
            and FastAdaptiveFusion.fits(module.fusion)
        )

    def prepare(self) -> None:
        """Find what both modalities' convolutions see."""
        self.halos = reach(self.infrared), reach(self.visible)

    def forward(self, infrared: Tensor, visible: Tensor) -> Tensor:
        """Fuse two maps ``(B, in_channels, H, W)`` to ``(B, C, H, W)``."""
        check_alike(self.in_channels, infrared=infrared, visible=visible)
        infrared = in_strips(self.infrared, infrared, halo=self.halos[0], factor=4)
        strips_were_written = pays(visible)
        visible = in_strips(self.visible, visible, halo=self.halos[1], factor=4)
        return self.fusion.fuse(infrared, visible, onto=visible if strips_were_written else None)


@rewrites(AdaptiveFusion)
class FastAdaptiveFusion(Rewrite, AdaptiveFusion):
    """One sweep finds the mean that the gate needs, one fuses; what both compute is computed twice and never kept.

    Where strips do not pay, as on a GPU, it is computed once.
    """

    halo: int

    @classmethod
    def fits(cls, module: Any) -> bool:
        """Both global branches see means alone, the rest has a reach."""
        return (
            pools_first(module.recalibration)
            and is_a(module.gate, LocalGlobalGate)
            and pools_first(module.gate.pooled)
            and reach(module.aggregation) == 0
            and reach(module.gate.local) is not None
        )

    def prepare(self) -> None:
        """Find what the gate sees."""
        self.halo = in_a_row(self.aggregation, self.gate.local)

    def forward(self, infrared: Tensor, visible: Tensor) -> Tensor:
        """Fuse two maps ``(B, C, H, W)``."""
        check_alike(self.channels, infrared=infrared, visible=visible)
        return self.fuse(infrared, visible)

    def fuse(self, infrared: Tensor, visible: Tensor, onto: Tensor | None = None) -> Tensor:
        """Fuse, and overwrite ``onto`` with the result, which may be one of both maps."""
        means = torch.cat([x.mean(dim=(2, 3), keepdim=True) for x in (visible, infrared)], dim=1)
        scale = 1 + torch.sigmoid(self.recalibration(means))

        gate = self.gate

        def aggregate(visible: Tensor, infrared: Tensor) -> Tensor:
            return self.aggregation(recalibrated(visible, infrared, scale))

        if not pays(visible):
            whole = aggregate(visible, infrared)
            return gated_merge(visible, infrared, scale, gate.local(whole), gate.pooled(whole))
        pooled = gate.pooled(mean_in_strips(aggregate, visible, infrared))

        def mix(visible: Tensor, infrared: Tensor) -> Tensor:
            return gated_merge(visible, infrared, scale, gate.local(aggregate(visible, infrared)), pooled)

        return in_strips(mix, visible, infrared, halo=self.halo, onto=() if onto is None else (onto,))


@rewrites(SemanticInjection)
class FastSemanticInjection(Rewrite, SemanticInjection):
    """Scale and shift from one convolution, with both norms, in one sweep behind the one that finds the moments."""

    precise = ("norm_scale",)
    modulation: nn.Conv2d
    halo: int

    @classmethod
    def fits(cls, module: Any) -> bool:
        """The embedding has a reach, the norm is affine, and scale and shift come from convolutions of one size."""
        convs = (module.gamma, module.beta)
        return (
            is_affine(module.bn)
            and is_a(module.bn, nn.BatchNorm2d)
            and reach(module.embedding) is not None
            and all(is_convolution(conv) and conv.groups == 1 and conv.bias is not None for conv in convs)
            and module.gamma.kernel_size == module.beta.kernel_size
            and module.gamma.dilation == module.beta.dilation
        )

    def prepare(self) -> None:
        """Concatenate the outputs of both convolutions, and take the batch norm into scale and shift."""
        scale, shift = affine(self.bn)
        gamma, beta = self.gamma, self.beta
        dtype = gamma.weight.dtype
        self.norm_scale = frozen(scale[:, None, None].to(torch.promote_types(dtype, torch.float32)))
        bias: Any = (gamma.bias, (beta.bias.double() + shift).to(dtype))
        self.modulation = like(gamma, torch.cat([gamma.weight, beta.weight]), torch.cat(bias))
        self.halo = in_a_row(self.embedding, side_by_side(gamma, beta))

    def forward(self, x: Tensor, semantic: Tensor) -> Tensor:
        """Modulate ``(B, C, H, W)`` by ``(B, semantic_channels, h, w)``."""
        semantic = self.resized(x, semantic)
        mean, variance = moments(x)
        scale = self.norm_scale * (variance + 1e-5).rsqrt()

        def modulate(x: Tensor, semantic: Tensor) -> Tensor:
            return modulated(x, mean, scale, *self.modulation(self.embedding(semantic)).chunk(2, dim=1))

        return in_strips(modulate, x, semantic, halo=self.halo, factor=2)


@rewrites(SceneFidelityPath)
class FastSceneFidelityPath(Rewrite, SceneFidelityPath):
    """Mask, norm and head in one sweep behind the one that finds the mean."""

    halo: int | None

    @classmethod
    def fits(cls, module: Any) -> bool:
        """The mask is the usual one."""
        return is_a(module.mask, SceneMask) and is_a(module.mask.gate, LocalGlobalGate)

    def prepare(self) -> None:
        """Find what mask, norm and head see."""
        self.halo = in_a_row(self.mask.gate.local, self.mask.norm, self.head)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct a picture ``(B, out_channels, H, W)`` in [0, 1] from ``(B, C, H, W)``."""
        check_features("x", x, self.mask.channels)
        gate = self.mask.gate
        pooled = gate.pooled(x)

        def reconstruct(x: Tensor) -> Tensor:
            return self.head(self.mask.norm(gated(x, gate.local(x), pooled)))

        return in_strips(reconstruct, x, halo=self.halo, factor=2)


@rewrites(PSFusion)
class MixedPrecisionPSFusion(Rewrite, PSFusion):
    """In bfloat16, the details at full resolution, which the instance norms behind them amplify, stay in float32."""

    precise = (
        "infrared_encoder.stem.full_resolution",
        "visible_encoder.stem.full_resolution",
        "detail_fusion.0",
    )
    input_dtype = torch.float32

    @classmethod
    def fits(cls, module: Any) -> bool:
        """What is between float32 and less is made fast, and converts from one to the other."""
        encoders = (module.infrared_encoder, module.visible_encoder)
        return (
            all(is_a(encoder, FunnelResNet) and is_a(encoder.stem, FunnelStem) for encoder in encoders)
            and is_a(module.injections[1], SemanticInjection)
            and FastSemanticInjection.fits(module.injections[1])
        )
