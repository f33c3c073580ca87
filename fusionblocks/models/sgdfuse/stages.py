"""The first and the last stage of SGDFuse: a first fusion before the diffusion, and the head behind it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from fusionblocks.blocks.hfah import HFAH
from fusionblocks.blocks.msfem import MSFEM
from fusionblocks.blocks.transformer import TransformerBlock
from fusionblocks.image import luma, with_luma
from fusionblocks.models.sgdfuse.unet import StrictLoading


class PreliminaryFusion(StrictLoading, ModelMixin, ConfigMixin):
    """Stage I: both modalities enhanced, then blended pixel by pixel with weights from a transformer.

    Like the denoiser, it is one of diffusers' models, so that a pipeline can save and load it.

    Args:
        channels: Width of the transformer.
        enhancement_channels: Width inside each modality's :class:`~fusionblocks.MSFEM`.
        num_blocks: Transformer blocks.
        num_heads: Heads of each.

    Example:
        >>> import torch
        >>> from fusionblocks.models import PreliminaryFusion
        >>> stage = PreliminaryFusion(8, enhancement_channels=4, num_blocks=1)
        >>> stage(torch.rand(1, 1, 12, 10), torch.rand(1, 3, 12, 10)).shape
        torch.Size([1, 3, 12, 10])
    """

    @register_to_config
    def __init__(
        self, channels: int = 64, *, enhancement_channels: int = 32, num_blocks: int = 2, num_heads: int = 8
    ) -> None:
        super().__init__()
        self.enhance_infrared = MSFEM(hidden_channels=enhancement_channels)
        self.enhance_visible = MSFEM(hidden_channels=enhancement_channels)
        self.embed = nn.Conv2d(2, channels, 3, padding=1)
        self.blocks = nn.Sequential(*(TransformerBlock(channels, num_heads=num_heads) for _ in range(num_blocks)))
        self.weigh = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, infrared: Tensor, visible: Tensor) -> Tensor:
        """Return the first fusion in the visible picture's colours.

        Args:
            infrared: Infrared picture ``(B, 1, H, W)`` in [0, 1].
            visible: Visible RGB picture ``(B, 3, H, W)`` in [0, 1].

        Returns:
            RGB picture ``(B, 3, H, W)`` in [0, 1].
        """
        gray = luma(visible)
        enhanced = torch.cat([self.enhance_infrared(infrared), self.enhance_visible(gray)], dim=1)  # (B, 2, H, W)
        weight = torch.sigmoid(self.weigh(self.blocks(self.embed(enhanced))))  # of infrared, (B, 1, H, W)
        return with_luma(gray + weight * (infrared - gray), visible)


class AggregationHead(HFAH, StrictLoading, ModelMixin, ConfigMixin):
    """The head :class:`~fusionblocks.HFAH` as one of diffusers' models, so that a pipeline can save and load it.

    Args:
        in_channels: Channels of each level, the finest first.
        out_channels: Channels of the picture.
        hidden_channels: Common width of the levels.
        reduction: Every level's attention has ``1 / reduction`` of its channels inside.

    Example:
        >>> import torch
        >>> from fusionblocks.models import AggregationHead
        >>> head = AggregationHead((16, 32), hidden_channels=16)
        >>> head([torch.rand(1, 16, 12, 10), torch.rand(1, 32, 6, 5)]).shape
        torch.Size([1, 3, 12, 10])
    """

    @register_to_config
    def __init__(
        self,
        in_channels: Sequence[int] = (64, 128, 256, 512),
        out_channels: int = 3,
        *,
        hidden_channels: int = 64,
        reduction: int = 16,
    ) -> None:
        super().__init__(in_channels, out_channels, hidden_channels=hidden_channels, reduction=reduction)
