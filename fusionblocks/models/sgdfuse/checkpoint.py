"""SGDFuse: the diffusion network's state dict, its U-Net under ``denoise_fn.``.

The authors' code saves the whole diffusion: the U-Net and the noise schedule's tables. Stage I and the aggregation
head were never released, so a checkpoint covers the denoiser alone (:data:`PARTS`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from fusionblocks.models.published import convert_keys, is_state

PARTS = ("denoiser",)
"""The network's parts that the authors' files hold; the others stay at their initial values, with a warning."""

RENAMES = (
    (r"denoise_fn\.", "denoiser."),
    (r"noise_level_mlp\.1\.", "time_embedding.linear_1."),
    (r"noise_level_mlp\.3\.", "time_embedding.linear_2."),
    (r"init_conv\.", "conv_in."),
    (r"mid\.(\d+)\.res_block\.", r"mid_block.resnets.\1."),
    (r"mid\.(\d+)\.attn\.", r"mid_block.attentions.\1."),
    (r"final_conv\.block\.0\.", "conv_norm_out."),
    (r"final_conv\.block\.3\.", "conv_out."),
    # inside a residual block and its attention
    (r"res_block\.", "resnet."),
    (r"attn\.", "attention."),
    (r"noise_func\.noise_func\.0\.", "time_emb_proj."),
    (r"block([12])\.block\.0\.", r"norm\1."),
    (r"block([12])\.block\.3\.", r"conv\1."),
    (r"res_conv\.", "conv_shortcut."),
    (r"norm\.", "group_norm."),
    (r"out\.", "to_out.0."),
    # the blocks that the authors released as classes alone
    (r"conv1x1\.", "point."),
    (r"conv3x3\.", "scales.0."),
    (r"conv5x5\.", "scales.1."),
    (r"conv7x7\.", "scales.2."),
    (r"feature_enhancement\.", "enhance."),
    (r"channel_reduction\.0\.", "gate."),
    (r"attention_layers\.(\d+)\.fc\.0\.", r"attention.\1.fc1."),
    (r"attention_layers\.(\d+)\.fc\.2\.", r"attention.\1.fc2."),
    (r"reduce_convs\.", "reduce."),
    (r"fusion_head\.", "head."),
)

_TABLE = "a table of the noise schedule, computed anew from the schedule's name"
UNUSED = {
    r"betas$": _TABLE,
    r"alphas_cumprod(_prev)?$": _TABLE,
    r"sqrt_(one_minus_)?alphas_cumprod$": _TABLE,
    r"log_one_minus_alphas_cumprod$": _TABLE,
    r"sqrt_recip(m1)?_alphas_cumprod$": _TABLE,
    r"posterior_(variance|log_variance_clipped|mean_coef[12])$": _TABLE,
}

_LAYER = re.compile(r"(?P<prefix>(?:.*\.)?)(?P<way>downs|ups)\.(?P<index>\d+)\.(?P<part>res_block|attn|conv)\.")
_PARTS = {"res_block": "resnets", "attn": "attentions"}


def unwrap(checkpoint: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Return the published state dict, or ``None`` if this is not a checkpoint of SGDFuse's diffusion network."""
    if is_state(checkpoint) and any(key.startswith("denoise_fn.") for key in checkpoint):
        return dict(checkpoint)
    return None


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return published keys and weights as ours; serves the network, the U-Net alone and one of its layers."""
    levels = _levels(state)
    converted = convert_keys({_numbered(key, levels): value for key, value in state.items()}, RENAMES, UNUSED)
    for key in [key for key in converted if re.search(r"(?<![^.])qkv\.weight$", key)]:
        stem, fused = key.removesuffix("qkv.weight"), converted.pop(key)
        for name, weight in zip(("to_q", "to_k", "to_v"), fused.flatten(1).chunk(3), strict=True):
            converted[f"{stem}{name}.weight"] = weight
            converted[f"{stem}{name}.bias"] = torch.zeros_like(weight[:, 0])  # the published projection has none
    # a 1x1 convolution of pixels is a linear layer of tokens
    return {key: value.flatten(1) if key.endswith("to_out.0.weight") else value for key, value in converted.items()}


def _levels(state: Mapping[str, Tensor]) -> dict[tuple[str, int], tuple[int, int]]:
    """Return ``{(way, index): (level, layer)}``: the authors number all layers of a way in one row.

    A resampling convolution ends its level.
    """
    layers = {(m["way"], int(m["index"])): m["part"] for m in map(_LAYER.match, state) if m}
    levels: dict[tuple[str, int], tuple[int, int]] = {}
    for way in ("downs", "ups"):
        level = layer = 0
        for index in sorted(index for w, index in layers if w == way):
            levels[way, index] = level, layer
            level, layer = (level + 1, 0) if layers[way, index] == "conv" else (level, layer + 1)
    return levels


def _numbered(key: str, levels: Mapping[tuple[str, int], tuple[int, int]]) -> str:
    """Return a layer's key with its level and its place there: ``downs.4.attn.`` is ``down_blocks.1.attentions.1.``."""
    match = _LAYER.match(key)
    if match is None:
        return key
    level, layer = levels[match["way"], int(match["index"])]
    blocks, sampler = ("down_blocks", "downsamplers") if match["way"] == "downs" else ("up_blocks", "upsamplers")
    part = f"{sampler}.0.conv" if match["part"] == "conv" else f"{_PARTS[match['part']]}.{layer}"
    return f"{match['prefix']}{blocks}.{level}.{part}.{key[match.end() :]}"
