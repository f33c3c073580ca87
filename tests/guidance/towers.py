"""Small towers of open_clip with random weights."""

from __future__ import annotations

import torch
from torch import nn


def tiny_tower(seed: int = 0, **options) -> nn.Module:
    """Return an image tower of 32 x 32 pixels, 4 x 4 patches and an output of 24."""
    from open_clip.transformer import VisionTransformer

    torch.manual_seed(seed)
    settings = {"image_size": 32, "patch_size": 8, "width": 16, "layers": 2, "heads": 2, "mlp_ratio": 2.0}
    return VisionTransformer(**{**settings, "output_dim": 24, **options})


def tiny_clip(seed: int = 0) -> nn.Module:
    """Return a whole CLIP model with such a tower; its text tower reads what OpenAI's tokenizer writes."""
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    torch.manual_seed(seed)
    vision = CLIPVisionCfg(layers=2, width=16, head_width=8, mlp_ratio=2.0, patch_size=8, image_size=32)
    return CLIP(24, vision, CLIPTextCfg(context_length=77, vocab_size=49408, width=16, heads=2, layers=1))
