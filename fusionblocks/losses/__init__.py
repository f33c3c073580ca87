"""Training losses of infrared-visible fusion: functions, modules, and their weighted sum by name."""

from __future__ import annotations

from fusionblocks._lazy import lazy_attributes

_MODULES = {
    # a weighted sum of terms
    "FusionLoss": ".fusion",
    "LossReport": ".fusion",
    "PRESETS": ".presets",
    "Preset": ".presets",
    "TERMS": ".terms",
    "Term": ".terms",
    # brightness
    "IntensityMaxLoss": ".intensity",
    "MaskedIntensityLoss": ".intensity",
    "MaskedPatchMSELoss": ".intensity",
    "intensity_max_loss": ".intensity",
    "masked_intensity_loss": ".intensity",
    "masked_patch_mse_loss": ".intensity",
    # edges
    "ArtifactLoss": ".edges",
    "EdgePreservationLoss": ".edges",
    "artifact_loss": ".edges",
    "edge_preservation_loss": ".edges",
    "AxisGradientLoss": ".gradient",
    "JointGradientLoss": ".gradient",
    "axis_gradient_loss": ".gradient",
    "joint_gradient_loss": ".gradient",
    # colour
    "ColorLoss": ".color",
    "color_loss": ".color",
    # floors under contrast, sharpness and brightness
    "BrightnessLoss": ".statistics",
    "ContrastLoss": ".statistics",
    "RangeLoss": ".statistics",
    "SpatialFrequencyLoss": ".statistics",
    "brightness_loss": ".statistics",
    "contrast_loss": ".statistics",
    "range_loss": ".statistics",
    "spatial_frequency_loss": ".statistics",
    # structure and information
    "EntropyLoss": ".information",
    "MutualInformationLoss": ".information",
    "entropy_loss": ".information",
    "mutual_information_loss": ".information",
    "SCDLoss": ".similarity",
    "SSIMLoss": ".similarity",
    "SourceSSIMLoss": ".similarity",
    "VIFLoss": ".similarity",
    "scd_loss": ".similarity",
    "source_ssim_loss": ".similarity",
    "ssim_loss": ".similarity",
    "vif_loss": ".similarity",
    # correlations
    "CorrelationRatioLoss": ".correlation",
    "DecompositionLoss": ".correlation",
    "GraphDecompositionLoss": ".correlation",
    "correlation_ratio_loss": ".correlation",
    "decomposition_loss": ".correlation",
    "feature_correlation": ".correlation",
    "graph_decomposition_loss": ".correlation",
    # a rebuilt picture
    "GradientLoss": ".reconstruction",
    "GramLoss": ".reconstruction",
    "L1Loss": ".reconstruction",
    "SecondGradientLoss": ".reconstruction",
    "SpatialGradientLoss": ".reconstruction",
    "gradient_loss": ".reconstruction",
    "gram_loss": ".reconstruction",
    "l1_loss": ".reconstruction",
    "second_gradient_loss": ".reconstruction",
    "spatial_gradient_loss": ".reconstruction",
    # labels
    "CrossEntropyLoss": ".segmentation",
    "OHEMCrossEntropyLoss": ".segmentation",
    "TwoClassLoss": ".segmentation",
    "cross_entropy_loss": ".segmentation",
    "ohem_cross_entropy_loss": ".segmentation",
    "two_class_loss": ".segmentation",
    # noise
    "NoiseLoss": ".diffusion",
    "noise_loss": ".diffusion",
}

__all__ = sorted(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy_attributes(__name__, _MODULES)
