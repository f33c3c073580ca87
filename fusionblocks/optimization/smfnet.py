"""SMFNet that lets go of features once they are fused."""

from __future__ import annotations

from torch import Tensor

from fusionblocks.image import check_pair, luma
from fusionblocks.models.base import FusionOutput
from fusionblocks.models.smfnet import Decoder, Reconstruction, SMFNet
from fusionblocks.optimization.recast import fast
from fusionblocks.optimization.strips import in_strips


@fast(Decoder)
class FastDecoder(Decoder):
    """The three convolutions in one sweep."""

    def forward(self, features: Tensor) -> Tensor:
        """Decode features ``(B, C, H, W)`` to a picture ``(B, 1, H, W)`` in [0, 1]."""
        return in_strips(self.head, self.transformer(features), halo=3, factor=2)


@fast(SMFNet)
class FastSMFNet(SMFNet):
    """Each feature that the output does not hold is freed once it is fused."""

    def forward(self, infrared: Tensor, visible: Tensor) -> FusionOutput:
        """Fuse a pair, see :meth:`SMFNet.forward`."""
        check_pair(infrared, visible, visible_channels=(1, 3))
        thermal = self.encoder(infrared)
        bright = self.encoder(luma(visible) if visible.shape[1] == 3 else visible)
        shallow = [thermal.shallow, bright.shallow]
        features = {
            "base_infrared": thermal.base,
            "base_visible": bright.base,
            "detail_infrared": thermal.detail,
            "detail_visible": bright.detail,
        }
        del thermal, bright
        wanted = self.optimization.outputs
        if wanted is None or "features" in wanted:
            fused, *graph = self.graph_reasoning.features(shallow)
            base = features["base_infrared"] + features["base_visible"]
            detail = features["detail_infrared"] + features["detail_visible"]
            features |= dict(zip(("graph_infrared", "graph_visible"), graph, strict=True))
        else:
            base = features.pop("base_infrared").add_(features.pop("base_visible"))
            detail = features.pop("detail_infrared").add_(features.pop("detail_visible"))
            fused = self.graph_reasoning.fused(shallow)
        fused = self.detail_fusion(detail) + fused
        del detail
        return FusionOutput(fused=self.decoder(fused.add_(self.base_fusion(base))), features=features or None)

    def reconstruct(self, infrared: Tensor, visible: Tensor) -> Reconstruction:
        """Rebuild both inputs, see :meth:`SMFNet.reconstruct`; float32 comes back if float32 came."""
        dtype = self.decoder.head[0].weight.dtype
        rebuilt = super().reconstruct(infrared.to(dtype), visible.to(dtype))
        return Reconstruction(rebuilt.infrared.to(infrared.dtype), rebuilt.visible.to(visible.dtype))
