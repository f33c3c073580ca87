"""Semantic features injected into the features of a picture."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from fusionblocks._support.checks import check_features, check_positive


class SemanticInjection(nn.Module):
    """Instance-normalised features, scaled and shifted per pixel by semantic features of any resolution.

    Args:
        channels: Width ``C`` of the features that are modulated.
        semantic_channels: Width of the semantic features; None: ``channels``.
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

    kind = "modulate"

    def __init__(self, channels: int, semantic_channels: int | None = None, *, hidden_channels: int = 64) -> None:
        super().__init__()
        semantic_channels = channels if semantic_channels is None else semantic_channels
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
            semantic: Semantic features ``(B, semantic_channels, h, w)``, resized to ``H x W``; or an embedding
                ``(B, semantic_channels)``, the same for all pixels.

        Returns:
            The modulated features ``(B, C, H, W)``.
        """
        embedding = self.embedding(self.resized(x, semantic))
        # one group a channel is instance norm, but defined (as zero) for a single pixel too
        normalized = torch.group_norm(x, self.channels)
        return self.bn(normalized * (1 + torch.sigmoid(self.gamma(embedding)))) + self.beta(embedding)

    def resized(self, x: Tensor, semantic: Tensor) -> Tensor:
        """Return the semantic features at the size of a feature map, ``(B, semantic_channels, H, W)``.

        Args:
            x: Feature map ``(B, C, H, W)``.
            semantic: Semantic features ``(B, semantic_channels, h, w)`` or an embedding ``(B, semantic_channels)``.

        Raises:
            TypeError: If one is not a float tensor.
            ValueError: If one has another shape, or the batch sizes differ.
        """
        check_features("x", x, self.channels)
        if isinstance(semantic, Tensor) and semantic.ndim == 2:
            semantic = rearrange(semantic, "b s -> b s 1 1")
        check_features("semantic", semantic, self.semantic_channels)
        if x.shape[0] != semantic.shape[0]:
            raise ValueError(f"x and semantic must have the same batch size, got {x.shape[0]} and {semantic.shape[0]}")
        return F.interpolate(semantic, size=x.shape[-2:], mode="bilinear", align_corners=False)
