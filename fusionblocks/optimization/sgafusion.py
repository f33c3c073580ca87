"""SGAFusion with one embedding a picture, whose attention is a constant that convolutions can take in."""

from __future__ import annotations

import torch
from einops import einsum, rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F

from fusionblocks.image import check_pair
from fusionblocks.models.base import FusionOutput
from fusionblocks.models.sgafusion import DegradationAwareEncoder, SGAFusion
from fusionblocks.optimization.folding import frozen
from fusionblocks.optimization.recast import fast

# B batch, H and W the picture's size, C channels of the fourth stage


@fast(DegradationAwareEncoder)
class FastDegradationAwareEncoder(DegradationAwareEncoder):
    """Activates in place, and lets go of the first stages."""

    def prepare(self) -> None:
        """Activate fresh results of convolutions in place."""
        activate_in_place(self.stem)
        for stage in self.stages:
            activate_in_place(stage)

    def last_two(self, picture: Tensor, *, degraded: bool) -> tuple[Tensor, Tensor]:
        """Return the features of the third and the fourth stage."""
        x = self.stem(picture)
        x = self.degradation(x) if degraded else x
        for stage in self.stages[:-1]:
            x = stage(x)
        return x, self.stages[-1](x)


@fast(SGAFusion)
class FastSGAFusion(SGAFusion):
    """Of a lone token every pixel gets the same answer: projection and decoder become one convolution.

    The decoder's first convolution sees ``P x + answer`` beside ``x``. It is linear: of ``P x`` and ``x`` it makes
    what one convolution of half the width makes of ``x``, and of the answer a constant, but for the border.
    """

    def prepare(self) -> None:
        """Compose the image projection with the decoder's first convolution."""
        for block in self.decoder:
            activate_in_place(block)
        conv, projection = self.decoder[0][0], self.semantic_attention.image_projection
        guided, plain = conv.weight.double().chunk(2, dim=1)
        through = einsum(guided, projection.weight.double()[:, :, 0, 0], "out m kh kw, m c -> out c kh kw")
        self.composed = frozen((through + plain).to(conv.weight.dtype))
        self.guided_weight = frozen(guided.to(conv.weight.dtype))

    def forward(self, infrared: Tensor, visible: Tensor, semantic: Tensor | None = None) -> FusionOutput:
        """Fuse a pair, see :meth:`SGAFusion.forward`."""
        check_pair(infrared, visible)
        semantic = self._semantic(visible, semantic)
        skip, both = self.encoder.last_two(visible, degraded=True)
        infrared = self.encoder.last_two(repeat(infrared, "b 1 h w -> b 3 h w"), degraded=False)
        skip, both = skip.add_(infrared[0]), both.add_(infrared[1])
        del infrared

        attention = self.semantic_attention
        lone = semantic.ndim == 2 or semantic.shape[1] == 1
        if attention.asks == "image" and lone and min(both.shape[2:]) > 2:
            x = self._decode_guided(both, attention, semantic)
        else:
            x = self.decoder[0](torch.cat([attention(both, semantic), both], dim=1))
        del both
        decoded = self.decoder[1](x).add_(skip)
        wanted = self.optimization.outputs
        segmentation = self.segmentation_head(decoded) if wanted is None or "segmentation" in wanted else None
        return FusionOutput(fused=self.fusion_head(decoded), segmentation=segmentation)

    def _decode_guided(self, both: Tensor, attention: nn.Module, semantic: Tensor) -> Tensor:
        """Return the decoder's first block of the guided features beside ``both``."""
        attention._check_semantic(semantic, batch=both.shape[0])
        token = attention.semantic_projection(semantic if semantic.ndim == 2 else semantic[:, 0])
        answer = attention.out(attention.value(token)) + attention.image_projection.bias
        # what a zero-padded 3x3 convolution makes of a constant: nine values, for corners, sides and the middle
        constant = repeat(answer, "b c -> b c 3 3")
        field = F.conv2d(constant, self.guided_weight, self.decoder[0][0].bias, padding=1)
        x = F.conv2d(both, self.composed, padding=1).add_(field[:, :, 1:2, 1:2])
        for row in (0, -1):
            x[:, :, row, 1:-1] += rearrange(field[:, :, row, 1] - field[:, :, 1, 1], "b c -> b c 1")
            x[:, :, 1:-1, row] += rearrange(field[:, :, 1, row] - field[:, :, 1, 1], "b c -> b c 1")
            for column in (0, -1):
                x[:, :, row, column] += field[:, :, row, column] - field[:, :, 1, 1]
        for layer in self.decoder[0][1:]:
            x = layer(x)
        return x


def activate_in_place(layers: nn.Sequential) -> None:
    """Let activations right behind a convolution overwrite its result."""
    for before, layer in zip(layers, layers[1:], strict=False):
        if isinstance(before, nn.Conv2d) and isinstance(layer, nn.LeakyReLU):
            layer.inplace = True
