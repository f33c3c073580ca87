"""Semantic features injected into the features of a picture."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionblocks.blocks.checks import check_features, check_positive


class SemanticInjection(nn.Module):
    """Instance-normalised features, scaled and shifted per pixel by semantic features of any resolution.

    Args:
        channels: Width ``C`` of the features that are modulated.
        semantic_channels: Width of the semantic features.
        hidden_channels: Width of the embedding that scale and shift are computed from.

    Raises:
        ValueError: If a size is not positive, an input has another number of channels, or the batch sizes differ.

    Reference:
        "Rethinking the necessity of image fusion in high-level vision tasks" (PSFusion), 2023 (published class
        ``SIM``).

    Example:
        >>> import torch
        >>> from fusionblocks import SemanticInjection
        >>> injection = SemanticInjection(8, 16, hidden_channels=8)
        >>> injection(torch.rand(1, 8, 6, 10), torch.rand(1, 16, 3, 5)).shape
        torch.Size([1, 8, 6, 10])
    """

    def __init__(self, channels: int, semantic_channels: int, *, hidden_channels: int = 64) -> None:
        super().__init__()
        check_positive(channels=channels, semantic_channels=semantic_channels, hidden_channels=hidden_channels)
        self.channels = channels
        self.semantic_channels = semantic_channels
        self.embedding = nn.Sequential(nn.Conv2d(semantic_channels, hidden_channels, 3, padding=1), nn.ReLU())
        self.gamma = nn.Conv2d(hidden_channels, channels, 3, padding=1)
        self.beta = nn.Conv2d(hidden_channels, channels, 3, padding=1)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, semantic: Tensor) -> Tensor:
        """Modulate.

        Args:
            x: Feature map ``(B, C, H, W)``.
            semantic: Semantic features ``(B, semantic_channels, h, w)``, resized to ``H x W``.

        Returns:
            The modulated features ``(B, C, H, W)``.
        """
        check_features("x", x, self.channels)
        check_features("semantic", semantic, self.semantic_channels)
        if x.shape[0] != semantic.shape[0]:
            raise ValueError(f"x and semantic must have the same batch size, got {x.shape[0]} and {semantic.shape[0]}")
        semantic = F.interpolate(semantic, size=x.shape[-2:], mode="bilinear", align_corners=False)
        embedding = self.embedding(semantic)
        # one group a channel is instance norm, but defined (as zero) for a single pixel too
        normalized = torch.group_norm(x, self.channels)
        return self.bn(normalized * (1 + torch.sigmoid(self.gamma(embedding)))) + self.beta(embedding)
