"""Prediction of classes, foreground and boundaries from sparse semantic features."""

from __future__ import annotations

import torch
from timm.layers import ConvNormAct
from torch import Tensor, nn

from fusionblocks._support.checks import check_divisible, check_features, check_positive


class S2P2(nn.Module):
    """Sparse semantic prediction: the foreground's probability weighs the features of classes and boundaries.

    Args:
        channels: Width ``C`` of the semantic features, a multiple of 4.
        num_classes: Number of semantic classes.

    Raises:
        ValueError: If a size is not positive, ``channels`` is not a multiple of 4, or ``x`` has another number of
            channels.

    Reference:
        "Rethinking the necessity of image fusion in high-level vision tasks" (PSFusion), 2023 (published class
        ``S2P2``).

    Example:
        >>> import torch
        >>> from fusionblocks import S2P2
        >>> segmentation, binary, boundary = S2P2(8, num_classes=5)(torch.rand(1, 8, 4, 6))
        >>> segmentation.shape, binary.shape, boundary.shape
        (torch.Size([1, 5, 16, 24]), torch.Size([1, 2, 16, 24]), torch.Size([1, 2, 16, 24]))
    """

    stands_alone = "returns logits of classes, foreground and boundaries"

    def __init__(self, channels: int, num_classes: int = 9) -> None:
        super().__init__()
        check_positive(num_classes=num_classes)
        check_divisible("channels", channels, "reduction", 4)
        self.channels = channels
        self.binary = nn.Sequential(
            ConvNormAct(channels, channels // 4, 1, act_layer=nn.ReLU6),
            nn.Conv2d(channels // 4, 2, 3, padding=1),
        )
        self.semantic_features = ConvNormAct(channels, channels, 1, act_layer=nn.ReLU6)
        self.segmentation = nn.Conv2d(channels, num_classes, 3, padding=1)
        self.boundary = nn.Sequential(
            ConvNormAct(2 * channels, channels, 1, bias=True, act_layer=nn.ReLU6),
            nn.Conv2d(channels, 2, 3, padding=1),
        )
        self.up2 = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.up4 = nn.Upsample(scale_factor=4, mode="bilinear", align_corners=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predict.

        Args:
            x: Semantic features ``(B, C, H, W)``, at a quarter of the picture's resolution.

        Returns:
            The logits ``(segmentation, binary, boundary)``: ``(B, num_classes, 4 H, 4 W)``, and twice
            ``(B, 2, 4 H, 4 W)`` for background and foreground, interior and boundary.
        """
        check_features("x", x, self.channels)
        binary = self.binary(x)
        foreground = torch.softmax(binary, dim=1)[:, 1:]
        semantic = self.semantic_features(self.up2(x * foreground))
        boundary = self.boundary(torch.cat([semantic, self.up2(x)], dim=1))
        return self.up2(self.segmentation(semantic)), self.up4(binary), self.up2(boundary)
