"""Attention between a feature map and a few semantic tokens."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

from fusionblocks.blocks._checks import check_divisible, check_features, check_positive
from fusionblocks.ops import token_attention

# B batch, C channels, H and W height and width, S width of a semantic token, T tokens, N = H W pixels


class CLIPQueryAttention(nn.Module):
    """Steers a feature map by the semantics of its picture, a CLIP embedding or several tokens.

    With ``query="image"``, as the authors released it, every pixel asks the tokens and adds their answer. A lone
    token gets all of every pixel's attention, so its answer is worked out once a picture. With
    ``query="semantic"``, as the paper's figure draws it, every token asks all pixels; the answers are averaged over
    the tokens and added at every pixel.

    Args:
        channels: Channels of the feature map.
        semantic_channels: Width of a semantic token (512 for CLIP ViT-B/32).
        num_heads: Heads; must divide ``channels``.
        query: Who asks, ``"image"`` or ``"semantic"``.

    Raises:
        ValueError: If a size is not a positive integer, ``channels`` is no multiple of ``num_heads`` or ``query`` is
            neither of the two.

    Reference:
        SGAFusion: Semantic-Guided Adaptive Fusion for Infrared-Visible Images Under Degradation Conditions (2025),
        class ``CrossAttentionFusion``.

    Example:
        >>> import torch
        >>> from fusionblocks import CLIPQueryAttention
        >>> block = CLIPQueryAttention(16, semantic_channels=32)
        >>> image, tokens = torch.rand(2, 16, 9, 7), torch.rand(2, 5, 32)
        >>> block(image, tokens).shape, block(image, tokens[:, 0]).shape
        (torch.Size([2, 16, 9, 7]), torch.Size([2, 16, 9, 7]))
    """

    def __init__(
        self, channels: int = 128, *, semantic_channels: int = 512, num_heads: int = 2, query: str = "image"
    ) -> None:
        super().__init__()
        check_divisible("channels", channels, "num_heads", num_heads)
        check_positive(semantic_channels=semantic_channels)
        if query not in ("image", "semantic"):
            raise ValueError(f"query must be 'image' or 'semantic', got {query!r}")
        self.channels = channels
        self.semantic_channels = semantic_channels
        self.num_heads = num_heads
        self.asks = query
        self.image_projection = nn.Conv2d(channels, channels, 1)
        self.semantic_projection = nn.Linear(semantic_channels, channels)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, image: Tensor, semantic: Tensor) -> Tensor:
        """Return the projected feature map plus what the attention between both answers.

        Args:
            image: Features ``(B, channels, H, W)``.
            semantic: One token a picture ``(B, semantic_channels)``, or several ``(B, T, semantic_channels)``.

        Returns:
            Features ``(B, channels, H, W)``.
        """
        check_features("image", image, self.channels)
        self._check_semantic(semantic, batch=image.shape[0])
        image = self.image_projection(image)
        tokens = self.semantic_projection(semantic if semantic.ndim == 3 else semantic[:, None])

        if self.asks == "semantic":
            answer = self._attend(tokens, rearrange(image, "b c h w -> b (h w) c"))
            answer = rearrange(answer.mean(dim=1), "b c -> b c 1 1")
        else:
            # a softmax over one token is 1: all pixels get the answer that the first one gets
            asking = image if tokens.shape[1] > 1 else image[:, :, :1, :1]
            answer = self._attend(rearrange(asking, "b c h w -> b (h w) c"), tokens)
            answer = rearrange(answer, "b (h w) c -> b c h w", h=asking.shape[2])
        return image + answer

    def _attend(self, asking: Tensor, asked: Tensor) -> Tensor:
        """Return what ``(B, N, C)`` learns from ``(B, M, C)``, ``(B, N, C)``."""
        query, key, value = (
            rearrange(x, "b n (heads d) -> b heads n d", heads=self.num_heads)
            for x in (self.query(asking), self.key(asked), self.value(asked))
        )
        return self.out(rearrange(token_attention(query, key, value), "b heads n d -> b n (heads d)"))

    def _check_semantic(self, semantic: Tensor, batch: int) -> None:
        width = self.semantic_channels
        expected = f"({batch}, {width}) or ({batch}, T, {width})"
        if not isinstance(semantic, Tensor):
            raise TypeError(f"semantic must be a tensor of shape {expected}, got {type(semantic).__name__}")
        sound = semantic.ndim in (2, 3) and semantic.shape[-1] == width and semantic.shape[0] == batch
        if not sound or semantic.shape[1] < 1:
            raise ValueError(f"semantic must have shape {expected}, got {tuple(semantic.shape)}")
        if not semantic.is_floating_point():
            raise TypeError(f"semantic must be of a floating-point dtype, got {semantic.dtype}")
