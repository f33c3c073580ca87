"""The public contract: these names, these signatures; users rely on them."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

import fusionblocks as fb

TOP_LEVEL = {
    "__version__",
    "ExpertReport",
    "ExpertWeights",
    "FusionModel",
    "FusionOutput",
    "Laplacian",
    "NoiseConditionedUNet",
    "PSFusion",
    "SGAFusion",
    "SGDFuse",
    "SGDFusePipeline",
    "SMFNet",
    "blocks",
    "create_model",
    "data",
    "expert_report",
    "fuse",
    "guidance",
    "image",
    "list_models",
    "load_official",
    "losses",
    "metrics",
    "models",
    "ops",
    "optimize",
    "training",
}
BLOCKS = {
    "AdaptiveFusion",
    "AffineCoupling",
    "BaseFeatureExtraction",
    "CAI",
    "CLIPQueryAttention",
    "ChannelAttention",
    "ConvGRUCell",
    "CrossChannelAttention",
    "DSRM",
    "DegradationExperts",
    "DehazeExpert",
    "DenseLayer",
    "DetailFusion",
    "DualCrossAttention",
    "FReLU",
    "GlobalRefinement",
    "GradientResidualDense",
    "GraphReasoning",
    "HFAH",
    "InvertedResidual",
    "LeFF",
    "LoRALinear",
    "LowLightExpert",
    "MSFEM",
    "MixtureOfExperts",
    "PSFM",
    "S2P2",
    "S2PM",
    "SDFM",
    "SceneFidelityPath",
    "SemanticInjection",
    "TransformerBlock",
    "UniNet",
}
IMAGE = {
    "Padding",
    "VOID",
    "check_pair",
    "check_picture",
    "check_values",
    "crop",
    "gaussian_blur",
    "gaussian_kernel",
    "gaussian_pyramid",
    "gradient_magnitude",
    "laplacian",
    "laplacian_pyramid",
    "luma",
    "max_levels",
    "pad_to_multiple",
    "read_image",
    "reconstruct",
    "rgb_to_ycbcr",
    "sobel",
    "ssim",
    "ssim_map",
    "with_luma",
    "write_image",
    "ycbcr_to_rgb",
}
OPS = {
    "backend",
    "channel_attention",
    "cross_attention",
    "dual_cross_attention",
    "explain",
    "folded_token_attention",
    "token_attention",
}
DATA = {
    "DEGRADATIONS",
    "DegradedPictures",
    "LabelledPictures",
    "SyntheticScene",
    "class_folders",
    "degrade",
    "hold_out",
    "match_folders",
    "pair_folders",
    "synthetic_scene",
}
GUIDANCE = {
    "CLIPDegradationClassifier",
    "SAMMasks",
    "add_lora",
    "load_lora",
    "lora_state_dict",
    "masks_to_map",
    "merge_lora",
    "unmerge_lora",
}
LOSSES = {
    "FusionLoss",
    "LossReport",
    "PRESETS",
    "TERMS",
    "axis_gradient_loss",
    "color_loss",
    "correlation_ratio_loss",
    "cross_entropy_loss",
    "decomposition_loss",
    "feature_correlation",
    "gradient_loss",
    "gram_loss",
    "graph_decomposition_loss",
    "intensity_max_loss",
    "joint_gradient_loss",
    "l1_loss",
    "masked_intensity_loss",
    "masked_patch_mse_loss",
    "noise_loss",
    "ohem_cross_entropy_loss",
    "scd_loss",
    "second_gradient_loss",
    "source_ssim_loss",
    "spatial_gradient_loss",
    "ssim_loss",
    "two_class_loss",
    "vif_loss",
}
METRICS = {
    "CONVENTIONS",
    "Comparison",
    "FusionEvaluator",
    "METRICS",
    "average_gradient",
    "chen_blum",
    "chen_varshney",
    "chroma_difference",
    "correlation",
    "edge_preservation",
    "entropy",
    "evaluate",
    "feature_mutual_information",
    "fusion_artifacts",
    "mean_iou",
    "mean_squared_error",
    "multi_scale_structural_similarity",
    "mutual_information",
    "normalized_mutual_information",
    "peak_signal_to_noise_ratio",
    "read_gray_levels",
    "spatial_frequency",
    "standard_deviation",
    "structural_similarity",
    "sum_of_correlations_of_differences",
    "visual_information_fidelity",
}
TRAINING = {
    "Objective",
    "Recipe",
    "WithMasks",
    "class_accuracy",
    "list_recipes",
    "load_recipe",
    "read_log",
    "train",
    "train_classifier",
}
MODELS = ("fusionblocks", "laplacian", "psfusion", "sgafusion", "sgdfuse", "smfnet")

CONTRACT = {
    "fusionblocks": TOP_LEVEL | BLOCKS,
    "fusionblocks.blocks": BLOCKS,
    "fusionblocks.data": DATA,
    "fusionblocks.guidance": GUIDANCE,
    "fusionblocks.image": IMAGE,
    "fusionblocks.losses": LOSSES,
    "fusionblocks.metrics": METRICS,
    "fusionblocks.ops": OPS,
    "fusionblocks.training": TRAINING,
}
PACKAGES = [*CONTRACT, "fusionblocks.models"]


@pytest.mark.parametrize("package", CONTRACT)
def test_names_of_the_contract_exist(package: str) -> None:
    assert CONTRACT[package] <= set(importlib.import_module(package).__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_imports(package: str) -> None:
    module = importlib.import_module(package)
    for name in module.__all__:
        assert getattr(module, name) is not None


@pytest.mark.parametrize("package", PACKAGES)
def test_all_is_sorted_and_dir_is_complete(package: str) -> None:
    module = importlib.import_module(package)
    assert list(module.__all__) == sorted(set(module.__all__))
    assert set(module.__all__) <= set(dir(module))


@pytest.mark.parametrize("package", ["fusionblocks", "fusionblocks.blocks", "fusionblocks.models"])
def test_unknown_name_is_an_attribute_error(package: str) -> None:
    with pytest.raises(AttributeError, match="SDFN"):
        importlib.import_module(package).SDFN  # noqa: B018


def test_every_block_is_at_the_top() -> None:
    for name in fb.blocks.__all__:
        assert getattr(fb, name) is getattr(fb.blocks, name)


def test_networks_by_name_are_the_classes_at_the_top() -> None:
    assert tuple(fb.list_models()) == MODELS
    for name in MODELS:
        network = fb.models.model_class(name)
        assert getattr(fb, network.__name__) is network
        assert network.name == name
        assert network.paper, f"{name} names no paper"
        assert network.license_note, f"{name} has no licence note"


@pytest.mark.parametrize(
    ("function", "positional", "keywords"),
    [
        ("ops.channel_attention", ["query", "key", "value", "temperature"], {"backend": None}),
        ("ops.cross_attention", ["query", "key", "value"], {"scale": None, "backend": None}),
        (
            "ops.dual_cross_attention",
            ["query_a", "query_b", "key", "value_a", "value_b"],
            {"scale": None, "backend": None},
        ),
        ("metrics.evaluate", ["fused", "infrared", "visible", "metrics", "convention"], {}),
        ("fuse", ["infrared", "visible"], {"model": None, "resize": None}),
        ("optimize", ["model", "dtype"], {"outputs": None}),
    ],
)
def test_signature(function: str, positional: list[str], keywords: dict[str, object]) -> None:
    value = fb
    for part in function.split("."):
        value = getattr(value, part)
    parameters = inspect.signature(value).parameters
    assert [name for name, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD] == positional
    keyword_only = {name: p.default for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert keywords.items() <= keyword_only.items()


@pytest.mark.parametrize("name", [*MODELS])
def test_networks_take_the_pair_by_name(name: str) -> None:
    parameters = list(inspect.signature(fb.models.model_class(name).forward).parameters)
    assert parameters[1:3] == ["infrared", "visible"]


def test_package_is_typed() -> None:
    assert (Path(fb.__file__).parent / "py.typed").is_file()
