"""All metrics in one table, and the published evaluators' choices where they disagree."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fusionblocks._support.names import closest
from fusionblocks.image import luma
from fusionblocks.metrics._inputs import Levels, gray_levels
from fusionblocks.metrics.edges import edge_preservation, fusion_artifacts
from fusionblocks.metrics.fidelity import (
    correlation,
    mean_squared_error,
    peak_signal_to_noise_ratio,
    root_mean_squared_error,
    sum_of_correlations_of_differences,
)
from fusionblocks.metrics.information import (
    cross_entropy,
    feature_mutual_information,
    mutual_information,
    normalized_mutual_information,
)
from fusionblocks.metrics.reading import rounded_luma
from fusionblocks.metrics.statistics import (
    average_gradient,
    edge_intensity,
    entropy,
    spatial_frequency,
    standard_deviation,
)
from fusionblocks.metrics.structure import multi_scale_structural_similarity, structural_similarity
from fusionblocks.metrics.vif import visual_information_fidelity
from fusionblocks.metrics.vision import chen_blum, chen_varshney


@dataclass(frozen=True)
class Metric:
    """One metric of ``METRICS``.

    Args:
        name: As tables print it.
        function: ``function(fused, infrared, visible, **options)``, ``(B,)``.
        direction: 1 where a higher value is better, -1 where a lower one is.
        range: The least and the greatest value it can take, under any convention.
        description: What it measures, in one line.
        options: What tells it from another metric of the same function.

    Example:
        >>> from fusionblocks.metrics import METRICS
        >>> METRICS["MSE"].direction, METRICS["MSE"].range
        (-1, (0.0, 65025.0))
    """

    name: str
    function: Callable[..., Tensor]
    direction: int
    range: tuple[float, float]
    description: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, *pictures: Tensor | Levels, **options: Any) -> Tensor:
        """Return ``function(*pictures)`` with its options, those given before its own."""
        return self.function(*pictures, **{**self.options, **options})


@dataclass(frozen=True)
class Convention:
    """A published evaluator's choices, one entry of ``CONVENTIONS``.

    Args:
        name: As ``evaluate`` takes it.
        source: Whose evaluator it reproduces.
        published: The metrics that evaluator defines itself.
        options: Per metric the options that differ from the function's defaults.
        colour: Whether it scores a colour picture by its channels, and not by its luma.

    Example:
        >>> from fusionblocks.metrics import CONVENTIONS
        >>> CONVENTIONS["cddfuse"].options["SSIM"]
        {'data_range': 2.0}
        >>> "FMI" in CONVENTIONS["cddfuse"].published
        False
    """

    name: str
    source: str
    published: tuple[str, ...]
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    colour: bool = False


_INF = math.inf
_TABLE = (
    Metric("EN", entropy, 1, (0.0, 8.0), "Entropy of the gray levels of the result, in bits."),
    Metric("SD", standard_deviation, 1, (0.0, 127.5), "Standard deviation of the gray levels of the result: contrast."),
    Metric("SF", spatial_frequency, 1, (0.0, 255 * math.sqrt(2)), "Differences of neighbouring pixels: fine detail."),
    Metric("AG", average_gradient, 1, (0.0, _INF), "Mean magnitude of the gradient of the result: sharpness."),
    Metric("MI", mutual_information, 1, (0.0, 16.0), "Information on the levels of both sources, summed."),
    Metric("NMI", normalized_mutual_information, 1, (0.0, 2.0), "Mutual information over the mean entropy, summed."),
    Metric("MSE", mean_squared_error, -1, (0.0, 65025.0), "Mean squared difference to both sources."),
    Metric("RMSE", root_mean_squared_error, -1, (0.0, 255.0), "Root of the mean squared difference to each source."),
    Metric("PSNR", peak_signal_to_noise_ratio, 1, (-_INF, _INF), "Peak over the error to both sources, in decibels."),
    Metric("CC", correlation, 1, (-1.0, 1.0), "Correlation with both sources, averaged."),
    Metric("SCD", sum_of_correlations_of_differences, 1, (-2.0, 2.0), "What one source adds resembles that source."),
    Metric("VIF", visual_information_fidelity, 1, (0.0, _INF), "Visual information kept of both sources, summed."),
    Metric("Qabf", edge_preservation, 1, (0.0, 1.0), "Strength and orientation of the sources' edges that is kept."),
    Metric("Nabf", fusion_artifacts, -1, (0.0, 1.0), "Edges that no source has: artifacts of fusion."),
    Metric("SSIM", structural_similarity, 1, (-2.0, 2.0), "Structural similarity to both sources, summed."),
    Metric("MS_SSIM", multi_scale_structural_similarity, 1, (0.0, 2.0), "Structural similarity at five scales."),
    Metric("Qcb", chen_blum, 1, (0.0, 1.0), "Contrast of both sources that an eye still perceives."),
    Metric("Qcv", chen_varshney, -1, (0.0, _INF), "Error that an eye perceives, in the sources' salient regions."),
    Metric("FMI", feature_mutual_information, 1, (-_INF, _INF), "Mutual information of small windows, mostly 0 to 1."),
    Metric(
        "FMI_dct",
        feature_mutual_information,
        1,
        (-_INF, _INF),
        "FMI of the cosine transforms of whole pictures.",
        {"feature": "dct"},
    ),
    Metric("CE", cross_entropy, -1, (-_INF, _INF), "Divergence of the sources' histograms from that of the result."),
    Metric("EI", edge_intensity, 1, (0.0, 1020 * math.sqrt(2)), "Mean strength of the Sobel edges of the result."),
)

#: Every metric, by name, in the order of the tables.
METRICS: dict[str, Metric] = {metric.name: metric for metric in _TABLE}

# CDDFuse's evaluator has neither; SMFNet's, its descendant, is the published one that has both
_DESCENDANT = {"Nabf": {"stronger_than": "infrared"}, "MS_SSIM": {"variant": "smfnet"}}
_CDDFUSE = ("EN", "SD", "SF", "AG", "MI", "MSE", "PSNR", "CC", "SCD", "VIF", "Qabf", "SSIM")

#: Every convention, by name.
CONVENTIONS: dict[str, Convention] = {
    convention.name: convention
    for convention in (
        Convention(
            "cddfuse",
            "CDDFuse (2023), the evaluator most recent papers copy",
            _CDDFUSE,
            {"SSIM": {"data_range": 2.0}, **_DESCENDANT},
        ),
        Convention(
            "smfnet",
            "SMFNet (2025)",
            (*_CDDFUSE, "Nabf", "MS_SSIM"),
            {"AG": {"variant": "smfnet"}, "SSIM": {"data_range": 255.0}, **_DESCENDANT},
        ),
        Convention(
            "vifb",
            "VIFB: a visible and infrared image fusion benchmark (2020)",
            ("EN", "SD", "SF", "AG", "MI", "PSNR", "Qabf", "SSIM", "Qcb", "Qcv", "CE", "EI", "RMSE"),
            {
                "SF": {"variant": "vifb"},
                "AG": {"variant": "vifb"},
                "MI": {"stretched": True},
                "PSNR": {"variant": "vifb"},
                "Qabf": {"variant": "vifb"},
                "SSIM": {"data_range": 255.0, "window": "gaussian"},
                "RMSE": {"variant": "vifb"},
            },
            colour=True,
        ),
        Convention(
            "psfusion",
            "PSFusion and SeAFusion (2022), the MATLAB evaluator of their authors as their tables were made with it",
            (*_CDDFUSE, "Nabf", "MS_SSIM", "FMI", "FMI_dct"),
            {
                "SD": {"variant": "psfusion"},
                "SF": {"variant": "psfusion"},
                "AG": {"variant": "vifb"},
                "MI": {"unit": "bits", "saturated": True},
                "MSE": {"variant": "psfusion"},
                "PSNR": {"variant": "psfusion"},
                "VIF": {"saturated": True},
                "Nabf": {"variant": "psfusion"},
                "SSIM": {"data_range": 1.0, "window": "gaussian", "border": "replicate", "reduction": "mean"},
                "MS_SSIM": {"variant": "psfusion"},
                "FMI": {"feature": "edge"},
            },
        ),
    )
}


def evaluate(
    fused: Tensor,
    infrared: Tensor,
    visible: Tensor,
    metrics: Sequence[str] | None = None,
    convention: str = "cddfuse",
) -> dict[str, Tensor]:
    """Return the metrics of a batch of fused pictures, each as the named convention's evaluator computes it.

    Metrics that the convention's evaluator does not have (see ``CONVENTIONS[convention].published``) follow the
    library's defaults; ``"cddfuse"`` has Nabf and MS_SSIM from SMFNet's evaluator, which descends from it.

    Args:
        fused: ``(B, 1, H, W)`` or ``(B, 3, H, W)``, ``uint8`` levels or float in [0, 1]. Of a colour picture the luma
            counts, BT.601, of uint8 rounded. ``"vifb"`` compares each channel with the visible picture's, and averages
            the scores; its SF is that of the three channels side by side.
        infrared: As ``fused``.
        visible: As ``fused``.
        metrics: Names out of ``METRICS``; ``None`` for all.
        convention: ``"cddfuse"``, ``"smfnet"``, ``"vifb"`` or ``"psfusion"``.

    Returns:
        ``{metric: (B,)}``, float64, in the order asked for.

    Raises:
        TypeError: A picture is not a tensor or has an unfit dtype.
        ValueError: A picture has an unfit shape or values outside [0, 1] or is smaller than a metric allows, or a
            metric or the convention is unknown; the message names the closest one.

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import evaluate
        >>> fused, infrared, visible = torch.rand(3, 2, 1, 64, 64)
        >>> scores = evaluate(fused, infrared, visible, metrics=("EN", "VIF"))
        >>> {name: tuple(score.shape) for name, score in scores.items()}
        {'EN': (2,), 'VIF': (2,)}
    """
    names = tuple(METRICS) if metrics is None else check_metrics(metrics)
    chosen = check_convention(convention)
    infrared = _gray(infrared)
    if chosen.colour and _has_colours(fused):
        return _by_channels(fused, infrared, visible, names, convention)
    options = chosen.options
    levels = gray_levels(_gray(fused), infrared, _gray(visible))  # checked once, for all metrics
    # on a CPU one picture at a time stays in the cache; a GPU wants the batch
    groups = zip(*(x.split(1) for x in levels)) if levels[0].device.type == "cpu" else [levels]
    scores: dict[str, list[Tensor]] = {name: [] for name in names}
    for group in groups:
        pictures = [Levels(x) for x in group]
        for name in names:
            scores[name].append(METRICS[name](*pictures, **options.get(name, {})))
    return {name: torch.cat(parts) for name, parts in scores.items()}


def _by_channels(
    fused: Tensor, infrared: Tensor, visible: Tensor, names: tuple[str, ...], convention: str
) -> dict[str, Tensor]:
    """Return the metrics of a colour picture as VIFB's evaluator computes them."""
    channels = visible.split(1, dim=1) if _has_colours(visible) else (visible,) * 3
    pairs = zip(fused.split(1, dim=1), channels, strict=True)
    scores = [evaluate(channel, infrared, of_visible, names, convention) for channel, of_visible in pairs]
    means = {name: torch.stack([score[name] for score in scores]).mean(0) for name in names}
    if "SF" in means:
        beside = torch.cat(fused.unbind(1), dim=-1)[:, None]
        means["SF"] = METRICS["SF"](beside, **CONVENTIONS[convention].options.get("SF", {}))
    return means


def _has_colours(picture: Tensor) -> bool:
    return isinstance(picture, Tensor) and picture.ndim == 4 and picture.shape[1] == 3


def _gray(picture: Tensor) -> Tensor:
    """Return a colour picture's luma, of uint8 rounded as published evaluators read it; any other one as it is."""
    if not _has_colours(picture):
        return picture
    if picture.dtype == torch.uint8:
        return rounded_luma(picture)
    return luma(picture).clamp(0, 1) if picture.is_floating_point() else picture


def check_metrics(metrics: Sequence[str]) -> tuple[str, ...]:
    """Return the names, each once; raise a ``ValueError`` for an unknown one or none at all."""
    names = tuple(dict.fromkeys((metrics,) if isinstance(metrics, str) else metrics))
    if not names:
        raise ValueError("metrics must name at least one metric, got none")
    for name in names:
        if name not in METRICS:
            raise ValueError(
                f"unknown metric {name!r}{closest(name, METRICS, ', {}', key=_plain)}; there are {', '.join(METRICS)}"
            )
    return names


def check_convention(convention: str) -> Convention:
    """Return the convention of that name; raise a ``ValueError`` for an unknown one."""
    if convention not in CONVENTIONS:
        hint = closest(convention, CONVENTIONS, ", {}", key=_plain)
        raise ValueError(f"unknown convention {convention!r}{hint}; there are {', '.join(CONVENTIONS)}")
    return CONVENTIONS[convention]


def _plain(name: str) -> str:
    return "".join(c for c in str(name).lower() if c.isalnum())
