"""Building blocks of image fusion networks: one idea a file, usable alone, at any width."""

from __future__ import annotations

from fusionblocks._lazy import lazy_attributes

_MODULES = {
    # SMFNet
    "ChannelAttention": ".channel_attention",
    "CrossChannelAttention": ".channel_attention",
    "LeFF": ".transformer",
    "TransformerBlock": ".transformer",
    "BaseFeatureExtraction": ".base_feature_extraction",
    "ResidualTransformerGroup": ".base_feature_extraction",
    "InvertedResidual": ".inverted_residual",
    "InvertibleConv1x1": ".invertible_conv",
    "AffineCoupling": ".affine_coupling",
    "CAI": ".cai",
    "DetailNode": ".cai",
    "DetailFusion": ".detail_fusion",
    "GradientResidualDense": ".gradient_residual_dense",
    "ConvGRUCell": ".conv_gru",
    "GraphReasoning": ".graph_reasoning",
    "GlobalRefinement": ".global_refinement",
    # PSFusion
    "AdaptiveFusion": ".sdfm",
    "SDFM": ".sdfm",
    "DenseLayer": ".dense",
    "DualCrossAttention": ".psfm",
    "PSFM": ".psfm",
    "SemanticInjection": ".semantic_injection",
    "ImageHead": ".scene_fidelity",
    "SceneFidelityPath": ".scene_fidelity",
    "SceneMask": ".scene_fidelity",
    "S2PM": ".s2pm",
    "S2P2": ".s2p2",
    "DSRM": ".dsrm",
    "FReLU": ".frelu",
    "FunnelStem": ".funnel_stem",
    # SGAFusion
    "MixtureOfExperts": ".mixture_of_experts",
    "UniNet": ".mixture_of_experts",
    "DegradationExperts": ".degradation_experts",
    "DehazeExpert": ".degradation_experts",
    "LowLightExpert": ".degradation_experts",
    "CLIPQueryAttention": ".clip_query_attention",
    "LoRALinear": ".lora",
    # SGDFuse
    "MSFEM": ".msfem",
    "HFAH": ".hfah",
    # blocks by name and kind, and how far one sees
    "create_block": ".kinds",
    "list_blocks": ".kinds",
    "reach": ".reaching",
}

__all__ = sorted(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy_attributes(__name__, _MODULES)
