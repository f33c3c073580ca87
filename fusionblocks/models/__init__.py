"""Reference networks, each a short paragraph of blocks, with registry, saving and published-checkpoint loading."""

from __future__ import annotations

from fusionblocks._lazy import lazy_attributes

_MODULES = {
    "AggregationHead": ".sgdfuse",
    "FusionBlocksConfig": ".fusionblocks_net",
    "FusionBlocksNet": ".fusionblocks_net",
    "FusionModel": ".base",
    "FusionOutput": ".base",
    "Laplacian": ".laplacian",
    "LaplacianConfig": ".laplacian",
    "NoiseConditionedUNet": ".noise_conditioned_unet",
    "PSFusion": ".psfusion",
    "PSFusionConfig": ".psfusion",
    "PreliminaryFusion": ".sgdfuse",
    "SGAFusion": ".sgafusion",
    "SGAFusionConfig": ".sgafusion",
    "SGDFuse": ".sgdfuse",
    "SGDFuseConfig": ".sgdfuse",
    "SGDFusePipeline": ".sgdfuse_pipeline",
    "SGDFusePipelineOutput": ".sgdfuse_output",
    "SMFNet": ".smfnet",
    "SMFNetConfig": ".smfnet",
    "WrappedConfig": ".wrapping",
    "WrappedModel": ".wrapping",
    "as_network": ".wrapping",
    "beta_schedule": ".schedules",
    "create_model": ".registry",
    "inner_model": ".wrapping",
    "list_models": ".registry",
    "load_model": ".loading",
    "make_scheduler": ".schedules",
    "load_official": ".official",
    "model_class": ".registry",
    "noise_levels": ".schedules",
    "sampling": ".schedules",
    "swap": ".swapping",
    "visible_of": ".wrapping",
    "wrap": ".wrapping",
}

__all__ = sorted(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy_attributes(__name__, _MODULES)
