"""SMFNet's checkpoint: one dict of five state dicts, keys with or without the ``module.`` of DataParallel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fusionblocks.models.published import convert_keys, is_state

ENTRIES = ("DIDF_Encoder", "DIDF_Decoder", "BaseFuseLayer", "DetailFuseLayer", "GraphModel")

UNUSED = {
    r"(.*\.)?reduce_channel\.": "defined in both base modules, whose inputs have the right width already",
    r"(.*baseFeature\.)?norm\.": "the base branch ends with its last residual group",
    r"(.*\.)?conv_after_body\.": "the base branch ends with its last residual group",
    r"(.*\.)?graph\.C_cls\.": "the outer C_cls fuses both modalities",
    r"(.*\.)?C_cat\.[2-5]\.": "there is one graph and so two readouts",
    r"(.*\.)?C_ca\.": "channel attention of leader nodes, which the network never passes in",
}

RENAMES = (
    # graph reasoning: the published "rgb" is infrared, "dep" is visible
    (r"graph\.graph\.ppm_rgb\.convs", "infrared.node_convs"),
    (r"graph\.graph\.ppm_dep\.convs", "visible.node_convs"),
    (r"graph\.graph\.graph_rgb", "infrared"),
    (r"graph\.graph\.graph_dep", "visible"),
    (r"graph\.graph\.C_pa\.0", "attend_infrared"),
    (r"graph\.graph\.C_pa\.1", "attend_visible"),
    (r"graph\.C_cat\.0", "infrared.readout"),
    (r"graph\.C_cat\.1", "visible.readout"),
    (r"readout\.0", "readout.conv"),
    (r"readout\.1", "readout.bn"),
    (r"node_convs\.(\d+)\.0", r"node_convs.\1.conv"),
    (r"node_convs\.(\d+)\.1", r"node_convs.\1.bn"),
    (r"C_wgt", "message_weight"),
    (r"ConvGRU\.", "update."),
    (r"ConvGates", "gates"),
    (r"Conv_ct", "candidate"),
    (r"C_cls", "fuse"),
    # gradient residual dense block
    (r"GRDB\.dense\.conv(\d)\.conv", r"dense\1"),
    (r"GRDB\.convdown\.conv", "project_dense"),
    (r"GRDB\.convup\.conv", "project_gradient"),
    (r"GRDB\.sobelconv\.conv([xy])", r"sobel_\1"),
    (r"(GRDB_module|GRDB)\.", "gradient_dense."),
    (r"conv\.conv", "embed"),
    # invertible blocks
    (r"bottleneckBlock\.0", "expand"),
    (r"bottleneckBlock\.3", "depthwise"),
    (r"bottleneckBlock\.5", "reduce"),
    (r"shffleconv", "mix"),
    (r"theta_phi", "shift_second"),
    (r"theta_rho", "scale_first"),
    (r"theta_eta", "shift_first"),
    (r"net\.", "couplings."),
    (r"f\.", "shift_first."),
    (r"p\.", "scale_first."),
    (r"y\.", "shift_second."),
    (r"r\.", "scale_second."),
    # transformer blocks
    (r"TCA\.", "attention."),
    (r"attn\.", "attention."),
    (r"qkv1\.", "qkv."),
    (r"(qkv2|qkv_dwconv)\.", "qkv_local."),
    (r"scale$", "temperature"),
    (r"q\.", "query."),
    (r"kv\.", "key_value."),
    (r"q_dwconv", "query_local"),
    (r"kv_dwconv", "key_value_local"),
    (r"mlp\.project_in", "feed_forward.fc1"),
    (r"mlp\.project_out", "feed_forward.fc2"),
    (r"(mlp|ffn_leff)\.", "feed_forward."),
    (r"linear1\.0", "expand"),
    (r"dwconv\.0", "depthwise"),
    (r"linear2\.0", "reduce"),
    (r"body\.", ""),
    (r"patch_embed\.proj\.", "embed."),
    (r"(proj|project_out)\.", "project."),
    # branches
    (r"conv_first", "embed"),
    (r"layers\.(\d+)\.residual_group", r"layers.\1.pairs"),
    (r"layers\.(\d+)\.conv\.", r"layers.\1.bottleneck."),
    (r"encoder_level1\.0\.", "transformer."),
    (r"output\.", "head."),
    (r"baseFeature\.", "base."),
    (r"detailFeature\.", "detail."),
    (r"layer\.", "coupling."),
    # global refinement
    (r"SFT_scale_conv0", "scale.0"),
    (r"SFT_scale_conv1", "scale.2"),
    (r"SFT_shift_conv0", "shift.0"),
    (r"SFT_shift_conv1", "shift.2"),
    (r"SFT2", "modulate.0"),
    # the five networks
    (r"DIDF_Encoder\.", "encoder."),
    (r"DIDF_Decoder\.", "decoder."),
    (r"BaseFuseLayer\.", "base_fusion."),
    (r"DetailFuseLayer\.", "detail_fusion."),
    (r"GraphModel\.", "graph_reasoning."),
)


def unwrap(checkpoint: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """Return the five state dicts as one, keys ``<entry>.<key>``, or ``None`` if they are not all there."""
    if not all(is_state(checkpoint.get(entry)) for entry in ENTRIES):
        return None
    return {
        f"{entry}.{key.removeprefix('module.')}": value for entry in ENTRIES for key, value in checkpoint[entry].items()
    }


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the published state with our keys; published keys may be a block's own or the whole network's."""
    return convert_keys(state, RENAMES, UNUSED)
