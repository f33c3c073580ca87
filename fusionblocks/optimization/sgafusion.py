"""SGAFusion with one embedding a picture, whose attention is a constant that convolutions can take in."""

from __future__ import annotations

from typing import Any

from einops import einsum, rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F

from fusionblocks._support.modules import is_a
from fusionblocks.blocks.clip_query_attention import CLIPQueryAttention
from fusionblocks.models.sgafusion.network import SGAFusion
from fusionblocks.optimization.rewriting import Rewrite, frozen, is_convolution, is_pointwise, rewrites

# B batch, H and W the picture's size, C channels of the fourth stage


@rewrites(SGAFusion)
class ComposedSGAFusion(Rewrite, SGAFusion):
    """Of a lone token every pixel gets the same answer: projection and decoder become one convolution.

    The decoder's first convolution sees ``P x + answer`` beside ``x``. It is linear: of ``P x`` and ``x`` it makes
    what one convolution of half the width makes of ``x``, and of the answer a constant, but for the border.
    """

    @classmethod
    def fits(cls, module: Any) -> bool:
        """The pixels ask, and a 3x3 convolution follows."""
        attention, block = module.semantic_attention, module.decoder[0]
        return (
            is_a(attention, CLIPQueryAttention)
            and attention.asks == "image"
            and is_pointwise(attention.image_projection)
            and attention.image_projection.bias is not None
            and is_a(block, nn.Sequential)
            and len(block) > 0
            and is_convolution(block[0], kernel=3)
            and block[0].groups == 1
            and block[0].in_channels == 2 * attention.channels
        )

    def prepare(self) -> None:
        """Compose the image projection with the decoder's first convolution."""
        conv, projection = self.decoder[0][0], self.semantic_attention.image_projection
        guided, plain = conv.weight.double().chunk(2, dim=1)
        through = einsum(guided, projection.weight.double()[:, :, 0, 0], "out m kh kw, m c -> out c kh kw")
        self.composed = frozen((through + plain).to(conv.weight.dtype))
        self.guided_weight = frozen(guided.to(conv.weight.dtype))

    def _decoded_guided(self, both: Tensor, semantic: Tensor) -> Tensor:
        lone = semantic.ndim == 2 or semantic.shape[1] == 1
        if not lone or min(both.shape[2:]) <= 2:
            return super()._decoded_guided(both, semantic)
        attention: Any = self.semantic_attention
        block: Any = self.decoder[0]
        attention._check_semantic(semantic, batch=both.shape[0])
        token = attention.semantic_projection(semantic if semantic.ndim == 2 else semantic[:, 0])
        answer = attention.out(attention.value(token)) + attention.image_projection.bias
        # what a zero-padded 3x3 convolution makes of a constant: nine values, for corners, sides and the middle
        constant = repeat(answer, "b c -> b c 3 3")
        field = F.conv2d(constant, self.guided_weight, block[0].bias, padding=1)
        x = F.conv2d(both, self.composed, padding=1).add_(field[:, :, 1:2, 1:2])
        for row in (0, -1):
            x[:, :, row, 1:-1] += rearrange(field[:, :, row, 1] - field[:, :, 1, 1], "b c -> b c 1")
            x[:, :, 1:-1, row] += rearrange(field[:, :, 1, row] - field[:, :, 1, 1], "b c -> b c 1")
            for column in (0, -1):
                x[:, :, row, column] += field[:, :, row, column] - field[:, :, 1, 1]
        for layer in block[1:]:
            x = layer(x)
        return x
