"""The towers of a CLIP network, and what the image tower says of its input and output."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fusionblocks.guidance.clip.preprocessing import CLIP_DEFAULTS


def split_towers(model: nn.Module) -> tuple[nn.Module, nn.Module | None]:
    """Return the image tower, and the CLIP network without it (None if ``model`` is an image tower)."""
    visual = getattr(model, "visual", None)
    if not isinstance(visual, nn.Module) or not hasattr(model, "encode_text"):
        return model, None
    text = copy.copy(model)
    text.__dict__["_modules"] = {name: part for name, part in model._modules.items() if name != "visual"}
    return visual, text


def image_size(visual: nn.Module) -> tuple[int, int]:
    """Return the height and the width of the pictures that an image tower takes."""
    size = getattr(visual, "image_size", 224)
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def preprocess_config(visual: nn.Module) -> Mapping[str, Any]:
    """Return how an image tower's pictures are resized and normalised, by default as OpenAI's."""
    config = {**CLIP_DEFAULTS, **getattr(visual, "preprocess_cfg", {})}
    if config["resize_mode"] not in ("shortest", "squash"):
        raise ValueError(f"the tower's resize_mode must be 'shortest' or 'squash', got {config['resize_mode']!r}")
    return {name: config[name] for name in CLIP_DEFAULTS}


def output_width(visual: nn.Module) -> int:
    """Return the width of what an image tower returns."""
    width = getattr(visual, "output_dim", None)
    if isinstance(width, int):
        return width
    weight = next(visual.parameters())
    training = visual.training
    with torch.no_grad():
        width = pooled(visual.eval(), weight.new_zeros(1, 3, *image_size(visual))).shape[-1]
    visual.train(training)
    return width


def pooled(visual: nn.Module, x: Tensor) -> Tensor:
    """Return one embedding a picture, ``(B, D)``."""
    output = visual(x)
    return output[0] if isinstance(output, tuple) else output


def check_patches(visual: nn.Module) -> None:
    """Raise unless an image tower's patch tokens can be projected to the width of its output."""
    if not hasattr(visual, "forward_intermediates") or not hasattr(visual, "proj") or visual.attn_pool is not None:
        raise ValueError(
            f"tokens='patches' needs a vision transformer of open_clip without attention pooling, "
            f"got {type(visual).__name__}"
        )


def patches(visual: Any, x: Tensor) -> Tensor:
    """Return the tokens of the last block, normalised and projected as the pooled one, ``(B, T, D)``."""
    options = {"indices": 1, "normalize_intermediates": True, "intermediates_only": True, "output_fmt": "NLC"}
    (tokens,) = visual.forward_intermediates(x, **options)["image_intermediates"]
    return tokens if visual.proj is None else tokens @ visual.proj
