"""Attention between a feature map and a few semantic tokens."""

from __future__ import annotations

from einops import rearrange, reduce
from torch import Tensor, nn

from fusionblocks._support.checks import check_divisible, check_features, check_positive
from fusionblocks.ops import folded_token_attention, token_attention

# B batch, C channels, H and W height and width, S width of a semantic token, T tokens, N = H W pixels, d = C / heads


class CLIPQueryAttention(nn.Module):
    """Steers a feature map by the semantics of its picture, a CLIP embedding or several tokens.

    With ``query="image"``, as the authors released it, every pixel asks the tokens and adds their answer. A lone
    token gets all of every pixel's attention, so its answer is worked out once a picture; of several tokens, the
    pixels' projections move to the tokens while that is less work. With ``query="semantic"``, as the paper's figure
    draws it, every token asks all pixels; the answers are averaged over the tokens and added at every pixel.

    Args:
        channels: Channels of the feature map.
        semantic_channels: Width of a semantic token (512 for CLIP ViT-B/32).
        num_heads: Heads; must divide ``channels``.
        query: Who asks, ``"image"`` or ``"semantic"``.

    Raises:
        ValueError: If a size is not a positive integer, ``channels`` is not a multiple of ``num_heads`` or ``query`` is
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

    kind = "modulate"

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
            semantic: One token a picture ``(B, semantic_channels)``, several ``(B, T, semantic_channels)``, or a map
                ``(B, semantic_channels, h, w)`` whose every place is a token.

        Returns:
            Features ``(B, channels, H, W)``.
        """
        check_features("image", image, self.channels)
        if isinstance(semantic, Tensor) and semantic.ndim == 4:
            check_features("semantic", semantic, self.semantic_channels)
            semantic = rearrange(semantic, "b s h w -> b (h w) s")
        self._check_semantic(semantic, batch=image.shape[0])
        image = self.image_projection(image)
        tokens = self.semantic_projection(semantic if semantic.ndim == 3 else semantic[:, None])

        if self.asks == "semantic":
            return image + self._tokens_ask(tokens, rearrange(image, "b c h w -> b 1 (h w) c"))
        if tokens.shape[1] == 1:
            # a softmax over one token is 1: all pixels get the answer that the first one gets
            answer = self._pixels_ask(rearrange(image[:, :, :1, :1], "b c 1 1 -> b 1 c"), tokens)
            return image + rearrange(answer, "b 1 c -> b c 1 1")
        if (self.num_heads - 1) * tokens.shape[1] < self.channels:
            return self._pixels_ask_folded(image, tokens)
        answer = self._pixels_ask(rearrange(image, "b c h w -> b (h w) c"), tokens)
        return image + rearrange(answer, "b (h w) c -> b c h w", h=image.shape[2])

    def _pixels_ask(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """Return what pixels ``(B, N, C)`` learn from tokens ``(B, T, C)``, ``(B, N, C)``."""
        query, key, value = map(self._heads, (self.query(pixels), self.key(tokens), self.value(tokens)))
        return self.out(rearrange(token_attention(query, key, value), "b heads n d -> b n (heads d)"))

    def _pixels_ask_folded(self, image: Tensor, tokens: Tensor) -> Tensor:
        """Return the image ``(B, C, H, W)`` plus what its pixels learn, with no query or answer stored per pixel."""
        key, value = self._heads(self.key(tokens)), self._heads(self.value(tokens))
        # k . (Wq x + bq) = (Wq^T k) . x + bq . k, and Wo is linear: the projections of the pixels go to the tokens,
        # the output's bias to the values of every head in equal parts, since its weights sum to one
        key = key * (self.channels // self.num_heads) ** -0.5
        bias = key @ rearrange(self.query.bias, "(heads d) -> heads d 1", heads=self.num_heads)
        key = key @ rearrange(self.query.weight, "(heads d) c -> heads d c", heads=self.num_heads)
        value = value @ rearrange(self.out.weight, "c (heads d) -> heads d c", heads=self.num_heads)
        value = value + self.out.bias / self.num_heads
        pixels = rearrange(image, "b c h w -> b c (h w)")
        fused = folded_token_attention(pixels, key, value, bias.squeeze(-1), residual=True)
        return rearrange(fused, "b c (h w) -> b c h w", h=image.shape[2])

    def _tokens_ask(self, tokens: Tensor, pixels: Tensor) -> Tensor:
        """Return what tokens ``(B, T, C)`` learn from pixels ``(B, 1, N, C)`` on average, ``(B, C, 1, 1)``."""
        query = self._heads(self.query(tokens)) * (self.channels // self.num_heads) ** -0.5
        # q . (Wk x + bk) = (Wk^T q) . x + a constant that no softmax sees, and Wv is linear: all heads ask the pixels
        # themselves; the empty sum gives bk its gradient of zero
        query = query @ rearrange(self.key.weight, "(heads d) c -> heads d c", heads=self.num_heads)
        query = rearrange(query, "b heads t c -> b 1 (heads t) c") + self.key.bias[:0].sum()
        attended = token_attention(query, pixels, pixels, scale=1.0)
        # the mean over the tokens commutes with the projections that follow
        mean = reduce(attended, "b 1 (heads t) c -> b heads 1 c", "mean", heads=self.num_heads)
        value = mean @ rearrange(self.value.weight, "(heads d) c -> heads c d", heads=self.num_heads)
        answer = rearrange(value, "b heads 1 d -> b (heads d)") + self.value.bias
        return rearrange(self.out(answer), "b c -> b c 1 1")

    def _heads(self, x: Tensor) -> Tensor:
        return rearrange(x, "b n (heads d) -> b heads n d", heads=self.num_heads)

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
