"""The papers' losses: which terms, with which weights and options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fusionblocks.losses.segmentation import BINARY_WEIGHTS


@dataclass(frozen=True)
class Preset:
    """A published loss.

    Args:
        weights: The weight of each term.
        options: Options of terms that are not their defaults.
        source: The paper, and what of it.
    """

    weights: Mapping[str, float]
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    source: str = ""


#: The papers' losses that :meth:`FusionLoss.preset` knows by name, as their published training scripts compute them.
PRESETS: dict[str, Preset] = {
    # SMFNet's script has 8 (1 - SSIM) / 2, and a Lovász term of one channel that is constant, hence left out
    "smfnet_reconstruction": Preset(
        {
            "visible_ssim": 4.0,
            "visible_gradient": 10.0,
            "visible_spatial_gradient": 5.0,
            "infrared_ssim": 4.0,
            "infrared_gradient": 10.0,
            "infrared_gram": 1.0,
            "decomposition": 2.0,
        },
        {
            "visible_ssim": {"padding": "reflect"},
            "infrared_ssim": {"padding": "reflect"},
            "decomposition": {"detach": True},
        },
        "SMFNet (2025), phase I",
    ),
    # the details' correlation counts twice there, once in the place of the graph's
    "smfnet": Preset(
        {"intensity_max": 1.0, "joint_gradient": 10.0, "decomposition": 4.0},
        {"decomposition": {"detach": True}},
        "SMFNet (2025), phase II",
    ),
    "psfusion": Preset(
        {
            "ohem_cross_entropy": 10.0,
            "binary": 10.0,
            "boundary": 10.0,
            "correlation_ratio": 1.0,
            "axis_gradient": 10.0,
            "masked_patch_mse": 10.0,
            "visible_l1": 5.0,
            "visible_second_gradient": 5.0,
            "infrared_l1": 5.0,
            "infrared_second_gradient": 5.0,
        },
        {"binary": {"positive_weights": BINARY_WEIGHTS}, "masked_patch_mse": {"salient": "visible"}},
        "PSFusion (2023)",
    ),
    "sgafusion": Preset(
        {"intensity_max": 4.0, "color": 12.0, "axis_gradient": 10.0, "cross_entropy": 1.0},
        {"axis_gradient": {"border": "replicate"}},
        "SGAFusion (2025)",
    ),
    "sgafusion_fine_tuning": Preset(
        {"intensity_max": 4.0, "color": 12.0, "axis_gradient": 10.0},
        {"axis_gradient": {"border": "replicate"}},
        "SGAFusion (2025), fine-tuning on degraded scenes",
    ),
    # the weights are published, the code of the terms is not
    "sgdfuse": Preset({"intensity_max": 1.5, "joint_gradient": 1.0}, {}, "SGDFuse (2025), fusion"),
    "sgdfuse_diffusion": Preset({"noise": 1.0}, {}, "SGDFuse (2025), diffusion"),
}
