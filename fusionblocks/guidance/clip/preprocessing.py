"""What CLIP is shown: the published way and CLIP's own, on tensors, so that gradients and batches pass through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

PREPROCESSING = ("published", "clip")
# of OpenAI's CLIP; a tower of open_clip carries its own
CLIP_DEFAULTS: Mapping[str, Any] = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def prepare(picture: Tensor, size: tuple[int, int], *, preprocessing: str, config: Mapping[str, Any]) -> Tensor:
    """Return what the tower is shown, ``(B, 3, *size)`` in float32.

    Args:
        picture: ``(B, 1 or 3, H, W)`` in [0, 1].
        size: The height and the width that the tower takes.
        preprocessing: ``"published"``: the whole picture, squeezed to the size by Pillow's bicubic filter, nothing
            else. ``"clip"``: as ``config`` says.
        config: ``mean``, ``std``, ``interpolation`` and ``resize_mode``, as open_clip's towers carry it.
    """
    x = picture.float().expand(-1, 3, -1, -1)
    if preprocessing == "published":
        return resize(x, *size)
    height, width = size
    within = (height, width)
    if config["resize_mode"] == "shortest":
        scale = max(height / x.shape[2], width / x.shape[3])
        within = (max(int(x.shape[2] * scale + 1e-6), height), max(int(x.shape[3] * scale + 1e-6), width))
    x = resize(x, *within, mode=config["interpolation"])
    top, left = (round((side - need) / 2) for side, need in zip(within, size))
    x = x[:, :, top : top + height, left : left + width]
    mean, std = (
        torch.as_tensor(config[name], dtype=x.dtype, device=x.device)[:, None, None] for name in ("mean", "std")
    )
    return (x - mean) / std


def resize(x: Tensor, height: int, width: int, *, mode: str = "bicubic") -> Tensor:
    """Resize as Pillow does: antialiased, the width first, each pass clamped to [0, 1]."""
    for size in ((x.shape[2], width), (height, width)):
        if size != x.shape[2:]:
            x = F.interpolate(x, size, mode=mode, antialias=True, align_corners=False).clamp(0, 1)
    return x
