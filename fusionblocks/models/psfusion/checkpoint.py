"""PSFusion: a dict with the network's state dict under ``MTAN``, beside the optimizer's state and counters."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fusionblocks.models.published import convert_keys, is_state

RENAMES = (
    # the encoders: a stem of their own, then the ResNet without its first convolution
    (r"encoder_rgb_", "visible_encoder."),
    (r"encoder_thermal_", "infrared_encoder."),
    (r"(visible|infrared)_encoder\.conv1\.", r"\1_encoder.stem."),
    (r"(visible|infrared)_encoder\.bn1\.", r"\1_encoder.norm."),
    (r"(visible|infrared)_encoder\.layer3\.", r"\1_encoder.stages.0."),
    (r"(visible|infrared)_encoder\.layer4\.", r"\1_encoder.stages.1."),
    (r"(visible|infrared)_encoder\.layer5\.", r"\1_encoder.stages.2."),
    (r"(visible|infrared)_encoder\.layer6\.", r"\1_encoder.stages.3."),
    (r"SFEB1\.0\.", "full_resolution.0.conv."),
    (r"SFEB1\.1\.", "full_resolution.0.bn."),
    (r"SFEB1\.2\.", "full_resolution.1."),
    (r"SFEB1\.3\.", "full_resolution.2.conv."),
    (r"SFEB1\.4\.", "full_resolution.2.bn."),
    (r"SFEB1\.5\.", "full_resolution.3."),
    (r"SFEB2\.0\.", "half_resolution.0.conv."),
    (r"SFEB2\.1\.", "half_resolution.0.bn."),
    (r"SFEB2\.2\.", "half_resolution.1."),
    (r"SFEB2\.3\.", "half_resolution.2."),
    (r"conv_frelu\.", "condition.conv."),
    (r"bn_frelu\.", "condition.bn."),
    # fusion of the encoders' levels, from full resolution to 1/32
    (r"low_fuse1\.", "detail_fusion.0."),
    (r"low_fuse2\.", "detail_fusion.1."),
    (r"low_fuse3\.", "detail_fusion.2."),
    (r"high_fuse4\.", "semantic_fusion.0."),
    (r"high_fuse5\.", "semantic_fusion.1."),
    (r"high_fuse6\.", "semantic_fusion.2."),
    (r"basicconv\.0\.", "conv."),
    (r"basicconv\.1\.", "bn."),
    (r"RGBobj1_1\.", "visible.0."),
    (r"RGBobj1_2\.", "visible.1."),
    (r"RGBspr\.", "visible.2."),
    (r"Infobj1_1\.", "infrared.0."),
    (r"Infobj1_2\.", "infrared.1."),
    (r"Infspr\.", "infrared.2."),
    (r"RGBobj\.", "visible."),
    (r"Infobj\.", "infrared."),
    (r"obj_fuse\.", "fusion."),
    (r"down\.", "reduce."),
    (r"denseblock\.", "dense."),
    (r"fuse\.", "merge."),
    (r"Q\.", "shared_key."),
    (r"RGB_K\.", "visible_query."),
    (r"RGB_V\.", "visible_value."),
    (r"INF_K\.", "infrared_query."),
    (r"INF_V\.", "infrared_value."),
    (r"gamma1$", "visible_gain"),
    (r"gamma2$", "infrared_gain"),
    (r"Second_reduce\.", "merge."),
    (r"Recalibrate\.1\.", "recalibration.1.conv."),
    (r"Recalibrate\.2\.", "recalibration.1.bn."),
    (r"Recalibrate\.4\.", "recalibration.2.conv."),
    (r"Recalibrate\.5\.", "recalibration.2.bn."),
    (r"channel_agg\.0\.", "aggregation.conv."),
    (r"channel_agg\.1\.", "aggregation.bn."),
    # the gates of fusion and scene masks
    (r"local_att\.0\.", "gate.local.0.conv."),
    (r"local_att\.1\.", "gate.local.0.bn."),
    (r"local_att\.3\.", "gate.local.1.conv."),
    (r"local_att\.4\.", "gate.local.1.bn."),
    (r"local_att\.6\.", "gate.local.2.conv."),
    (r"local_att\.7\.", "gate.local.2.bn."),
    (r"global_att\.1\.", "gate.pooled.1.conv."),
    (r"global_att\.2\.", "gate.pooled.1.bn."),
    (r"global_att\.4\.", "gate.pooled.2.conv."),
    (r"global_att\.5\.", "gate.pooled.2.bn."),
    # semantic injection
    (r"SIM1\.", "injections.0."),
    (r"SIM2\.", "injections.1."),
    (r"SIM3\.", "injections.2."),
    (r"mlp_shared\.", "embedding."),
    (r"mlp_gamma\.0\.", "gamma."),
    (r"mlp_beta\.", "beta."),
    # semantic and scene branches
    (r"to_fused_seg\.(\d+)\.0\.", r"laterals.\1."),
    (r"seg_decoder\.", "perception."),
    (r"rec_decoder\.", "restoration.0."),
    (r"seg_rec_decoder\.", "restoration.1."),
    (r"block1\.", "convs.0."),
    (r"block2\.", "convs.1."),
    (r"block3\.", "convs.2."),
    (r"block4\.", "convs.3."),
    # heads
    (r"classfier\.", "prediction."),
    (r"bnop\.", "bn."),
    (r"binary_conv1\.", "binary.0."),
    (r"binary_conv2\.", "binary.1."),
    (r"semantic_conv1\.", "semantic_features."),
    (r"semantic_conv2\.", "segmentation."),
    (r"boundary_conv\.0\.", "boundary.0.conv."),
    (r"boundary_conv\.1\.", "boundary.0.bn."),
    (r"boundary_conv\.3\.", "boundary.1."),
    (r"pred_fusion\.conv_block\.0\.", "fused_head.conv."),
    (r"pred_vi\.", "visible_path."),
    (r"pred_ir\.", "infrared_path."),
    (r"conv_block\.0\.", "head.conv."),
    (r"conv_block\.", "norm."),
)

UNUSED = {
    r"(classfier\.)?boundary_conv1\.": "the boundary branch runs through boundary_conv instead",
    r"(classfier\.)?boundary_conv2\.": "the boundary branch runs through boundary_conv instead",
}


def unwrap(checkpoint: Mapping[str, object]) -> dict[str, Tensor] | None:
    """Return the published state dict under ``MTAN``, or ``None`` when ``checkpoint`` is not one of PSFusion."""
    state = checkpoint.get("MTAN")
    if not isinstance(state, Mapping) or not is_state(state):
        return None
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return published weights under our keys."""
    return convert_keys(state, RENAMES, UNUSED)
