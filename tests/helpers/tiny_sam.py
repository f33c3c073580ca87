"""A segment-anything network with 0.1 M random weights, which finds some masks in any picture."""

from __future__ import annotations

from functools import partial

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import nn

SIDE, PATCH, CHANNELS = 64, 16, 32
# a random network is sure of nothing
LOOSE = {"points_per_side": 4, "points_per_batch": 8, "pred_iou_thresh": -9.0, "stability_score_thresh": -1.0}


def tiny_sam(checkpoint: None = None, *, seed: int = 15) -> Sam:
    """Return the network; it can stand in segment-anything's registry for one of the published sizes."""
    assert checkpoint is None
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        sam = _build()
        for name, table in sam.named_parameters():
            if "pos" in name:  # position tables, which are zero at first
                table.normal_(std=0.3)
            elif name.startswith("mask_decoder.transformer") and table.ndim == 2:
                table.mul_(6)  # to heed the prompts
    return sam.eval()


def _build() -> Sam:
    grid = (SIDE // PATCH, SIDE // PATCH)
    encoder = ImageEncoderViT(
        img_size=SIDE,
        patch_size=PATCH,
        embed_dim=32,
        depth=3,
        num_heads=2,
        out_chans=CHANNELS,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=3,
        global_attn_indexes=(1,),
    )
    transformer = TwoWayTransformer(depth=1, embedding_dim=CHANNELS, num_heads=4, mlp_dim=32)
    return Sam(
        encoder,
        PromptEncoder(embed_dim=CHANNELS, image_embedding_size=grid, input_image_size=(SIDE, SIDE), mask_in_chans=8),
        MaskDecoder(transformer_dim=CHANNELS, transformer=transformer, num_multimask_outputs=3),
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    )
