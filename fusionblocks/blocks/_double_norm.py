"""The convolution of PSFusion's decoders."""

from __future__ import annotations

from timm.layers import BatchNormAct2d, ConvNormAct
from torch import nn


class DoubleNormConv(nn.Sequential):
    """3x3 convolution, batch norm, batch norm, ReLU: the second norm is in the published network and its weights."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            ConvNormAct(in_channels, out_channels, 3, apply_act=False),
            BatchNormAct2d(out_channels, act_layer=nn.ReLU),
        )
