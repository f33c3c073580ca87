"""fusionblocks: building blocks, reference networks and tools for infrared-visible image fusion."""

from __future__ import annotations

from fusionblocks._lazy import lazy_attributes
from fusionblocks.blocks import _MODULES as _BLOCKS
from fusionblocks.models.networks import public_names

__version__ = "0.1.0"

_MODULES = {
    **{name: f".blocks{module}" for name, module in _BLOCKS.items()},
    # models
    **public_names(".models", top=True),
    "FusionModel": ".models.base",
    "FusionOutput": ".models.base",
    "create_model": ".models.registry",
    "list_models": ".models.registry",
    "load_model": ".models.loading",
    "load_official": ".models.official",
    "swap": ".models.swapping",
    "wrap": ".models.wrapping",
    # two cameras
    "Alignment": ".alignment.alignment",
    "align": ".alignment.estimation",
    "read_thermal": ".image.radiometric",
    "alignment": ".alignment",
    # pictures in, picture out
    "fuse": ".inference",
    # sequences
    "FusionStream": ".video.stream",
    # what the experts of a network did
    "ExpertReport": ".experts",
    "ExpertWeights": ".experts",
    "expert_report": ".experts",
    # a network made fast, and written to a file for other programs
    "optimize": ".optimization",
    "export": ".deployment.exporting",
    # subpackages
    "blocks": ".blocks",
    "data": ".data",
    "deployment": ".deployment",
    "guidance": ".guidance",
    "image": ".image",
    "losses": ".losses",
    "metrics": ".metrics",
    "models": ".models",
    "ops": ".ops",
    "training": ".training",
    "video": ".video",
}

__all__ = sorted([*_MODULES, "__version__"])  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy_attributes(__name__, _MODULES)
