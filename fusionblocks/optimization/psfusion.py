"""PSFusion in strips: what lies between the convolutions at full resolution never exists as a whole."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionblocks.blocks._checks import check_alike, check_features
from fusionblocks.blocks.dsrm import DSRM
from fusionblocks.blocks.funnel_stem import FunnelStem
from fusionblocks.blocks.scene_fidelity import SceneFidelityPath
from fusionblocks.blocks.sdfm import SDFM, AdaptiveFusion
from fusionblocks.blocks.semantic_injection import SemanticInjection
from fusionblocks.image import check_pair, crop, pad_to_multiple
from fusionblocks.models.base import FusionOutput
from fusionblocks.models.psfusion import STRIDE, PSFusion, resize_like
from fusionblocks.optimization.folding import affine, frozen
from fusionblocks.optimization.recast import fast
from fusionblocks.optimization.strips import in_strips, mean_in_strips, moments


@fast(FunnelStem)
class FastFunnelStem(FunnelStem):
    """Both convolutions at full resolution and their funnel activations in one sweep."""

    precise = ("full_resolution",)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of ``(B, in_channels, H, W)`` at full and at half resolution."""
        check_features("x", x, self.in_channels)
        full = in_strips(self.full_resolution, x, halo=6, factor=4)
        return full, self.half_resolution(full.to(self.half_resolution[-1].weight.dtype))


@fast(SDFM)
class FastSDFM(SDFM):
    """Each modality's three convolutions in one sweep."""

    def forward(self, infrared: Tensor, visible: Tensor) -> Tensor:
        """Fuse two maps ``(B, in_channels, H, W)`` to ``(B, C, H, W)``."""
        check_alike(self.in_channels, infrared=infrared, visible=visible)
        infrared = in_strips(self.infrared, infrared, halo=3, factor=4)
        visible = in_strips(self.visible, visible, halo=3, factor=4)
        fusion: Any = self.fusion
        return fusion.fuse(infrared, visible, onto=visible)


@fast(AdaptiveFusion)
class FastAdaptiveFusion(AdaptiveFusion):
    """One sweep finds the mean that the gate needs, one fuses; what both compute is computed twice and never kept."""

    def forward(self, infrared: Tensor, visible: Tensor) -> Tensor:
        """Fuse two maps ``(B, C, H, W)``."""
        check_alike(self.channels, infrared=infrared, visible=visible)
        return self.fuse(infrared, visible)

    def fuse(self, infrared: Tensor, visible: Tensor, onto: Tensor | None = None) -> Tensor:
        """Fuse, and overwrite ``onto`` with the result, which may be one of both maps."""
        means = torch.cat([x.mean(dim=(2, 3), keepdim=True) for x in (visible, infrared)], dim=1)
        scale = 1 + torch.sigmoid(self.recalibration(means))
        pooled = self.gate.pooled(mean_in_strips(lambda *maps: self._aggregated(scale, *maps), visible, infrared))

        def mix(visible: Tensor, infrared: Tensor) -> Tensor:
            weight = torch.sigmoid(self.gate.local(self._aggregated(scale, visible, infrared)) * pooled)
            scale_visible, scale_infrared = scale.chunk(2, dim=1)
            return torch.lerp(infrared * scale_infrared, visible * scale_visible, weight)

        return in_strips(mix, visible, infrared, halo=0, onto=() if onto is None else (onto,))

    def _aggregated(self, scale: Tensor, visible: Tensor, infrared: Tensor) -> Tensor:
        return self.aggregation(torch.cat([visible, infrared], dim=1) * scale)


@fast(SemanticInjection)
class FastSemanticInjection(SemanticInjection):
    """Scale and shift from one convolution, with both norms, in one sweep behind the one that finds the moments."""

    precise = ("norm_scale",)

    def prepare(self) -> None:
        """Concatenate the outputs of both convolutions, and take the batch norm into scale and shift."""
        scale, shift = affine(self.bn)
        gamma: Any = self.gamma
        beta: Any = self.beta
        dtype = gamma.weight.dtype
        self.norm_scale = frozen(scale[:, None, None].to(torch.promote_types(dtype, torch.float32)))
        modulation = nn.utils.skip_init(nn.Conv2d, gamma.in_channels, 2 * self.channels, 3, padding=1, dtype=dtype)
        modulation.weight = frozen(torch.cat([gamma.weight, beta.weight]))
        modulation.bias = frozen(torch.cat([gamma.bias, (beta.bias.double() + shift).to(dtype)]))
        self.modulation = modulation
        del self.gamma, self.beta, self.bn

    def forward(self, x: Tensor, semantic: Tensor) -> Tensor:
        """Modulate ``(B, C, H, W)`` by ``(B, semantic_channels, h, w)``."""
        check_features("x", x, self.channels)
        check_features("semantic", semantic, self.semantic_channels)
        if x.shape[0] != semantic.shape[0]:
            raise ValueError(f"x and semantic must have the same batch size, got {x.shape[0]} and {semantic.shape[0]}")
        semantic = F.interpolate(semantic, size=x.shape[-2:], mode="bilinear", align_corners=False)
        mean, variance = moments(x)
        scale = self.norm_scale * (variance + 1e-5).rsqrt()

        def modulate(x: Tensor, semantic: Tensor) -> Tensor:
            gamma, beta = self.modulation(self.embedding(semantic)).chunk(2, dim=1)
            # the difference from the mean may be small: not in bfloat16
            normalized = (x.to(scale.dtype) - mean) * scale
            return torch.addcmul(beta.to(scale.dtype), normalized, 1 + torch.sigmoid(gamma)).to(semantic.dtype)

        return in_strips(modulate, x, semantic, halo=2, factor=2)


@fast(DSRM)
class FastDSRM(DSRM):
    """The concatenated features of the dense block never exist as a whole."""

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct ``(B, C, H, W)`` from ``(B, C, H, W)``."""
        check_features("x", x, self.channels)
        return in_strips(super().forward, x, halo=len(self.convs), factor=4)


@fast(SceneFidelityPath)
class FastSceneFidelityPath(SceneFidelityPath):
    """Mask, norm and head in one sweep behind the one that finds the mean."""

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct a picture ``(B, out_channels, H, W)`` in [0, 1] from ``(B, C, H, W)``."""
        check_features("x", x, self.mask.channels)
        gate = self.mask.gate
        pooled = gate.pooled(x)

        def reconstruct(x: Tensor) -> Tensor:
            return self.head(self.mask.norm(x * torch.sigmoid(gate.local(x) * pooled)))

        return in_strips(reconstruct, x, halo=4, factor=2)


@fast(PSFusion)
class FastPSFusion(PSFusion):
    """Lets go of the encoders' levels once they are fused, and predicts and restores what is asked for alone.

    The details at full resolution, which the instance norms behind them amplify, stay in float32.
    """

    precise = ("detail_fusion.0",)
    input_dtype = torch.float32
    optimization: Any

    def forward(self, infrared: Tensor, visible: Tensor) -> FusionOutput:
        """Fuse a pair, see :meth:`PSFusion.forward`."""
        check_pair(infrared, visible)
        infrared, padding = pad_to_multiple(infrared, STRIDE)
        visible, _ = pad_to_multiple(visible, STRIDE)
        wanted = self.optimization.outputs
        logits = ("segmentation", "binary", "boundary")

        levels = self.infrared_encoder(infrared), self.visible_encoder(visible)
        fusions = (*self.detail_fusion, *self.semantic_fusion)
        fused = [fuse(infrared=levels[0].pop(0), visible=levels[1].pop(0)) for fuse in fusions]

        laterals = [lateral(x) for lateral, x in zip(self.laterals, fused[2:], strict=True)]
        semantic = self.perception(torch.cat([resize_like(x, laterals[0]) for x in laterals], dim=1))
        del laterals
        predicted = self.prediction(semantic) if wanted is None or wanted.intersection(logits) else (None,) * 3

        scene = self.injections[0](fused[1], fused[2])
        scene = self.injections[1](fused[0], scene)
        del fused
        scene = self.restoration[0](scene)
        scene = self.injections[2](scene, semantic)
        scene = self.restoration[1](scene)

        output = FusionOutput(
            fused=self.fused_head(scene),
            **dict(zip(logits, predicted, strict=True)),
            visible=self.visible_path(scene) if wanted is None or "visible" in wanted else None,
            infrared=self.infrared_path(scene) if wanted is None or "infrared" in wanted else None,
        )
        return output.map(lambda x: crop(x, padding))
