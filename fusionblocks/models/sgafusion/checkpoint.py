"""SGAFusion's published checkpoint: one plain state dict, with or without ``module.`` before every key.

The classifier's checkpoint (``best_cls.pth``) is a whole pickled model and is refused as such; its owner can write
``torch.save(model.state_dict(), file)``.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fusionblocks.models.published import convert_keys, is_state

# Names that no other network's checkpoint has.
CHARACTERISTIC = ("resnet.moe1.", "conv_block4.2.gating_network.", "cross.cross_attention.")

RENAMES = (
    # mixtures of experts; BaseNet is the third of the degradation experts
    (r"experts\.(\d+)\.0\.", r"experts.\1.reduce."),
    (r"experts\.(\d+)\.2\.", r"experts.\1.expand."),
    (r"experts\.(weight|bias)", r"experts.2.\1"),
    (r"gating_network\.", "gating."),
    (r"dehazenet\.", "experts.0."),
    (r"lownet\.", "experts.1."),
    # the encoder
    (r"conv1\.conv\.", "stem.0."),
    (r"conv2\.conv\.", "stages.0.0."),
    (r"conv3\.conv\.", "stages.1.0."),
    (r"conv4\.conv\.", "stages.2.0."),
    (r"moe1\.", "degradation."),
    (r"moe2\.", "stages.0.2."),
    (r"moe3\.", "stages.1.2."),
    (r"moe4\.", "stages.2.2."),
    (r"resnet\.", "encoder."),
    # DehazeNet and LowNet
    (r"conv2\.", "context."),
    (r"conv3\.", "expand."),
    (r"conv4\.", "reduce."),
    (r"conv5\.", "head."),
    (r"fc1\.", "airlight_hidden."),
    (r"fc2\.", "airlight."),
    # attention, decoder and heads
    (r"cross_attention\.out_proj\.", "out."),
    (r"cross\.", "semantic_attention."),
    (r"conv_block4\.", "decoder.0."),
    (r"conv_block5\.", "decoder.1."),
    (r"seg_head\.", "segmentation_head."),
)

UNUSED: dict[str, str] = {}


def unwrap(checkpoint: Mapping[str, object]) -> dict[str, Tensor] | None:
    """Return the published state dict, or ``None`` when ``checkpoint`` is not one of SGAFusion."""
    if not is_state(checkpoint):
        return None
    state = {str(key).removeprefix("module."): value for key, value in checkpoint.items()}
    if not any(key.startswith(CHARACTERISTIC) for key in state):
        return None
    return state  # type: ignore[return-value]


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return published weights under our keys; the attention's packed projections are split in three."""
    prepared: dict[str, Tensor] = {}
    for key, value in state.items():
        prefix, _, leaf = key.rpartition(".")
        owner = prefix.rpartition(".")[0]  # of cross.fc1.weight: cross
        beside_attention = f"{owner}.cross_attention.in_proj_weight".lstrip(".") in state
        if leaf in ("in_proj_weight", "in_proj_bias"):
            for name, part in zip(("query", "key", "value"), value.chunk(3), strict=False):
                prepared[f"{owner}.{name}.{leaf.removeprefix('in_proj_')}".lstrip(".")] = part.clone()
        elif beside_attention and prefix.endswith("fc1"):
            prepared[f"{owner}.image_projection.{leaf}".lstrip(".")] = value
        elif beside_attention and prefix.endswith("fc2"):
            prepared[f"{owner}.semantic_projection.{leaf}".lstrip(".")] = value
        elif leaf in ("lora_A", "lora_B"):
            prepared[f"{prefix}.{'down' if leaf == 'lora_A' else 'up'}".lstrip(".")] = value.T.contiguous()
        else:
            prepared[key] = value
    return convert_keys(prepared, RENAMES, UNUSED)
