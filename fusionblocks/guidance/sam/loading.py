"""Segment-anything networks: by name from a local file, and with timm's encoder in place of their own."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fusionblocks._loading import load_strict, read_checkpoint

#: The published file of each network, and the width of its encoder, by which a file is recognised.
PUBLISHED = {
    "vit_b": ("sam_vit_b_01ec64.pth", 768),
    "vit_l": ("sam_vit_l_0b3195.pth", 1024),
    "vit_h": ("sam_vit_h_4b8939.pth", 1280),
}
OFFERED = "the README of github.com/facebookresearch/segment-anything, under 'Model Checkpoints'"


def load_sam(name: str, checkpoint: str | Path | None) -> Any:
    """Return the network called ``name`` with the weights of a local file.

    Raises:
        FileNotFoundError: If there is no such file, or none was given.
        ValueError: If the name is unknown, or the file is damaged, holds code or another network.
    """
    if name not in PUBLISHED:
        raise ValueError(f"model must be one of {', '.join(PUBLISHED)} or a segment_anything Sam, got {name!r}")
    file = PUBLISHED[name][0]
    if checkpoint is None or not Path(checkpoint).exists():
        raise FileNotFoundError(
            f"SAM {name!r} needs its weights, the file {file}: "
            + (f"{checkpoint} does not exist; " if checkpoint is not None else "")
            + f"its publisher offers it in {OFFERED}; pass checkpoint='path/to/{file}'"
        )
    state = read_checkpoint(checkpoint)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"checkpoint {checkpoint} is not a state dict of SAM {name!r}: expected one like {file}")

    from segment_anything import sam_model_registry

    sam = sam_model_registry[name]()
    try:
        load_strict(sam, state, source=str(checkpoint))
    except ValueError as error:
        raise ValueError(f"{error}; expected the weights of {name!r}, as {file} has them{_looks_like(state)}") from None
    return sam.eval()


def _looks_like(state: Mapping[str, Tensor]) -> str:
    """Return which of the published networks a state dict looks like, for an error."""
    shape = tuple(getattr(state.get("image_encoder.pos_embed"), "shape", ()))
    found = [name for name, (_, width) in PUBLISHED.items() if shape[-1:] == (width,)]
    return f"; it looks like {found[0]!r}" if found else ""


class TimmEncoder(nn.Module):
    """Timm's SAM encoder with the weights of segment-anything's, for square inputs of any size.

    Args:
        encoder: segment-anything's ``ImageEncoderViT``; its weights are copied.
        image_size: Side of the input in pixels, a multiple of the patch size. Position tables are interpolated.

    Raises:
        ValueError: If ``image_size`` is not a multiple of the patch size.
    """

    def __init__(self, encoder: Any, image_size: int) -> None:
        super().__init__()
        from timm.models.vision_transformer_sam import VisionTransformerSAM, checkpoint_filter_fn

        patch, first = encoder.patch_embed.proj, encoder.blocks[0]
        if image_size < 1 or image_size % patch.kernel_size[0]:
            raise ValueError(f"image_size must be a multiple of {patch.kernel_size[0]}, got {image_size}")
        windows = [block.window_size for block in encoder.blocks]
        trunk = VisionTransformerSAM(
            img_size=encoder.img_size,
            patch_size=patch.kernel_size[0],
            in_chans=patch.in_channels,
            num_classes=0,
            embed_dim=patch.out_channels,
            depth=len(windows),
            num_heads=first.attn.num_heads,
            mlp_ratio=first.mlp.lin1.out_features / patch.out_channels,
            qkv_bias=first.attn.qkv.bias is not None,
            norm_layer=partial(nn.LayerNorm, eps=first.norm1.eps),
            act_layer=type(first.mlp.act),
            use_abs_pos=encoder.pos_embed is not None,
            use_rel_pos=first.attn.use_rel_pos,
            window_size=max(windows),
            global_attn_indexes=tuple(index for index, window in enumerate(windows) if window == 0),
            neck_chans=encoder.neck[0].out_channels,
        )
        weights = {f"image_encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
        trunk.load_state_dict(checkpoint_filter_fn(weights, trunk))
        self.trunk = trunk.to(patch.weight.device, patch.weight.dtype)
        self.img_size = image_size

    def forward(self, x: Tensor) -> Tensor:
        """Return the embedding ``(B, C, S / patch, S / patch)`` of normalised pictures ``(B, 3, S, S)``."""
        return self.trunk.forward_features(x)


def with_timm_encoder(sam: Any, image_size: int | None = None) -> Any:
    """Return a Sam that shares its parts with ``sam`` but for the encoder, which is timm's with the same weights.

    Args:
        sam: A ``segment_anything.modeling.Sam``; it stays as it is.
        image_size: Side of the square that the encoder sees; None: the network's own.

    Raises:
        ValueError: If ``image_size`` is not a multiple of the patch size.
    """
    encoder = TimmEncoder(sam.image_encoder, sam.image_encoder.img_size if image_size is None else image_size)
    grid = encoder.img_size // sam.image_encoder.patch_embed.proj.kernel_size[0]
    prompts = copy.copy(sam.prompt_encoder)  # shares the weights, not the sizes
    prompts.image_embedding_size = (grid, grid)
    prompts.input_image_size = (encoder.img_size, encoder.img_size)
    prompts.mask_input_size = (4 * grid, 4 * grid)
    lighter = type(sam)(encoder, prompts, sam.mask_decoder)
    lighter.pixel_mean, lighter.pixel_std, lighter.mask_threshold = sam.pixel_mean, sam.pixel_std, sam.mask_threshold
    return lighter.eval()
