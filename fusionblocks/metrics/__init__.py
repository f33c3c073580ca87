"""Fusion metrics on batches of gray pictures, equal to the published evaluators, every convention named."""

from __future__ import annotations

from fusionblocks._lazy import lazy_attributes

_MODULES = {
    # the fused picture alone
    "average_gradient": ".statistics",
    "edge_intensity": ".statistics",
    "entropy": ".statistics",
    "spatial_frequency": ".statistics",
    "standard_deviation": ".statistics",
    # information shared with the sources
    "cross_entropy": ".information",
    "feature_mutual_information": ".information",
    "mutual_information": ".information",
    "normalized_mutual_information": ".information",
    # nearness to the sources
    "correlation": ".fidelity",
    "mean_squared_error": ".fidelity",
    "peak_signal_to_noise_ratio": ".fidelity",
    "root_mean_squared_error": ".fidelity",
    "sum_of_correlations_of_differences": ".fidelity",
    # structure, edges and what an eye sees of them
    "chen_blum": ".vision",
    "chen_varshney": ".vision",
    "edge_preservation": ".edges",
    "fusion_artifacts": ".edges",
    "multi_scale_structural_similarity": ".structure",
    "structural_similarity": ".structure",
    "visual_information_fidelity": ".vif",
    # beside the gray pictures: colour, and labels
    "chroma_difference": ".color",
    "mean_iou": ".segmentation",
    # sequences
    "background_flicker": ".video",
    "dense_inverse_search": ".video",
    "motion_smoothness": ".video",
    "self_warping_error": ".video",
    "warp": ".video",
    # all of them at once, under a convention
    "CONVENTIONS": ".conventions",
    "Convention": ".conventions",
    "METRICS": ".conventions",
    "Metric": ".conventions",
    "evaluate": ".conventions",
    # over many pictures, and several methods
    "Comparison": ".comparison",
    "FusionEvaluator": ".evaluator",
    "FusionMetric": ".modules",
    "MetricTable": ".table",
    "Remarks": ".remarks",
    "plot_curves": ".plots",
    "plot_overview": ".plots",
    "plot_radar": ".plots",
    "read_gray_levels": ".reading",
}

__all__ = sorted(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy_attributes(__name__, _MODULES)
