"""Metrics of what the fused picture tells about its sources: mutual information of levels and of local features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionblocks._support.checks import check_choice
from fusionblocks.image.filters import sobel
from fusionblocks.metrics._copula import windowed_information
from fusionblocks.metrics._histogram import histogram, joint_histogram, shannon, stretch
from fusionblocks.metrics._inputs import check_smallest, gray_levels
from fusionblocks.metrics._math import central_differences, safe_ratio

Unit = Literal["nats", "bits"]
Reduction = Literal["sum", "mean"]
Feature = Literal["pixel", "gradient", "edge", "dct"]
FMI_WINDOW = 3


def mutual_information(
    fused: Tensor,
    infrared: Tensor,
    visible: Tensor,
    *,
    unit: Unit = "nats",
    reduction: Reduction = "sum",
    stretched: bool = False,
    saturated: bool = False,
) -> Tensor:
    r"""Return MI, the mutual information of the gray levels of the result and of each source.

    :math:`I(F; A) + I(F; B)` with :math:`I(F; S) = H(F) + H(S) - H(F, S)` from 256-level histograms, float pictures
    being rounded to the nearest level. From 0 to twice EN (in one unit); higher is better. It has no gradient.

    CDDFuse and SMFNet sum both sources, in nats. VIFB does so after spreading each picture to the full range 0..255
    (``stretched=True``), which may merge or split levels. Papers that report about 1.44 times as much use bits. In
    PSFusion's tables, of 8-bit arrays, the levels 254 and 255 are one in :math:`H(F, S)`, since counting from 1 stops
    at 255 (``saturated=True``).

    Args:
        fused: ``(B, 1, H, W)``, ``uint8`` gray levels or float in [0, 1].
        infrared: As ``fused``.
        visible: As ``fused``.
        unit: ``"nats"`` or ``"bits"``.
        reduction: ``"sum"`` or ``"mean"`` over the two sources.
        stretched: Whether each picture is first spread to 0..255 and rounded.
        saturated: Whether the two highest levels are one in the joint histogram.

    Returns:
        ``(B,)``, float64.

    Raises:
        TypeError: A picture is not a tensor or has an unfit dtype.
        ValueError: A picture has an unfit shape or values outside [0, 1], or an option is unknown.

    Reference:
        Information measure for performance of image fusion, 2002.

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import mutual_information
        >>> halves = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])
        >>> mutual_information(halves, halves, halves, unit="bits")
        tensor([2.], dtype=torch.float64)
    """
    check_choice("unit", unit, get_args(Unit))
    check_choice("reduction", reduction, get_args(Reduction))
    f, *sources = _levels(fused, infrared, visible, stretched)
    if saturated:
        parts = [
            shannon(histogram(f), unit=unit)
            + shannon(histogram(source), unit=unit)
            - shannon(joint_histogram(f.clamp_max(254), source.clamp_max(254)), unit=unit)
            for source in sources
        ]
    else:
        parts = [_shared_and_total(f, source, unit)[0] for source in sources]
    return _reduce(parts, reduction)


def normalized_mutual_information(
    fused: Tensor,
    infrared: Tensor,
    visible: Tensor,
    *,
    reduction: Reduction = "sum",
    stretched: bool = False,
) -> Tensor:
    r"""Return NMI, the mutual information of result and source divided by their mean entropy.

    :math:`2\,\left[\frac{I(F; A)}{H(F) + H(A)} + \frac{I(F; B)}{H(F) + H(B)}\right]`, so that no source counts more for
    its larger entropy. From 0 to 2 for the sum, to 1 for the mean; higher is better. A source and a result that are
    both constant share no information by definition here: 0. It has no gradient.

    The unit cancels. Other normalisations carry the same name, for instance :math:`(H(F) + H(S)) / H(F, S)` in [1, 2]
    of scikit-image. VIFB's sister benchmarks spread each picture to 0..255 first (``stretched=True``).

    Args:
        fused: ``(B, 1, H, W)``, ``uint8`` gray levels or float in [0, 1].
        infrared: As ``fused``.
        visible: As ``fused``.
        reduction: ``"sum"`` or ``"mean"`` over the two sources.
        stretched: Whether each picture is first spread to 0..255 and rounded.

    Returns:
        ``(B,)``, float64.

    Raises:
        TypeError: A picture is not a tensor or has an unfit dtype.
        ValueError: A picture has an unfit shape or values outside [0, 1], or an option is unknown.

    Reference:
        Comments on "Information measure for performance of image fusion", 2008.

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import normalized_mutual_information
        >>> halves = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])
        >>> normalized_mutual_information(halves, halves, halves)
        tensor([2.], dtype=torch.float64)
    """
    check_choice("reduction", reduction, get_args(Reduction))
    f, *sources = _levels(fused, infrared, visible, stretched)
    pairs = [_shared_and_total(f, source, "bits") for source in sources]
    return _reduce([2 * safe_ratio(shared, total) for shared, total in pairs], reduction)


def cross_entropy(fused: Tensor, infrared: Tensor, visible: Tensor) -> Tensor:
    r"""Return CE: how far the histogram of the result is from those of the sources, in bits, averaged over both.

    :math:`\frac12\sum_S \sum_k p^S_k \log_2 (p^S_k / p^F_k)` over the levels that both pictures have, float pictures
    being rounded to the nearest level. What is published as cross entropy is this divergence. Lower is better; it can
    be below 0, because levels that one of the two lacks are left out. It has no gradient.

    Args:
        fused: ``(B, 1, H, W)``, ``uint8`` gray levels or float in [0, 1].
        infrared: As ``fused``.
        visible: As ``fused``.

    Returns:
        ``(B,)``, float64.

    Raises:
        TypeError: A picture is not a tensor or has an unfit dtype.
        ValueError: A picture has an unfit shape or values outside [0, 1].

    Reference:
        VIFB: a visible and infrared image fusion benchmark, 2020.

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import cross_entropy
        >>> picture = torch.rand(1, 1, 8, 8)
        >>> cross_entropy(picture, picture, picture)
        tensor([0.], dtype=torch.float64)
    """
    f, a, b = gray_levels(fused, infrared, visible)
    of_result = histogram(f)
    parts = []
    for source in (a, b):
        of_source = histogram(source)
        both = (of_source > 0) & (of_result > 0)
        ratio = torch.where(both, of_source, 1) / torch.where(both, of_result, 1)
        parts.append((torch.where(both, of_source, 0) * ratio.log2()).sum(1))
    return (parts[0] + parts[1]) / 2


def feature_mutual_information(
    fused: Tensor,
    infrared: Tensor,
    visible: Tensor,
    *,
    feature: Feature = "pixel",
) -> Tensor:
    r"""Return FMI, the normalised mutual information of the features in each 3x3 window, averaged.

    Each window of a feature map is spread to [0, 1] and divided by its sum: a distribution over nine positions. The
    joint distribution of two windows follows in closed form from their correlation (Fast-FMI), and
    :math:`\frac{2\,I}{H_F + H_S}` is averaged over the windows and over both sources. Mostly 0 to 1, as equal
    windows count 1 and unrelated ones 0 (the closed form does not bound single windows); higher is better.

    The features are the gray levels or, as in the published ``gradient`` option, their derivative along the rows alone;
    the coefficients of the whole picture's cosine transform (``dct``); or a map of edges (``edge``): 1 where the Sobel
    gradient exceeds twice its root mean square and its two neighbours in the row, or in the column. FMI_pixel in tables
    of PSFusion's and SeAFusion's authors is that of edges, which their function takes when no feature is named. A flat
    window shares no information with a window that differs from it; the
    published code leaves that to rounding, and sees equality with its first source alone.

    Args:
        fused: ``(B, 1, H, W)``, ``uint8`` gray levels or float in [0, 1], at least 3x3 pixels.
        infrared: As ``fused``.
        visible: As ``fused``.
        feature: ``"pixel"``, ``"gradient"``, ``"edge"`` or ``"dct"``.

    Returns:
        ``(B,)``, float64.

    Raises:
        TypeError: A picture is not a tensor or has an unfit dtype.
        ValueError: A picture has an unfit shape or values outside [0, 1], or the feature is unknown.

    Reference:
        A non-reference image fusion metric based on mutual information of image features, 2011; Fast-FMI:
        non-reference image fusion metric, 2014.

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import feature_mutual_information
        >>> picture = torch.rand(1, 1, 8, 8)
        >>> feature_mutual_information(picture, picture, picture)
        tensor([1.], dtype=torch.float64)
    """
    check_choice("feature", feature, get_args(Feature))
    f, a, b = gray_levels(fused, infrared, visible)
    check_smallest("FMI", f, side=FMI_WINDOW)
    with torch.no_grad():  # no loss: the windows' distributions jump where a minimum or maximum moves
        f, a, b = (_FEATURES[feature](x) for x in (f, a, b))
        return (windowed_information(f, a, window=FMI_WINDOW) + windowed_information(f, b, window=FMI_WINDOW)) / 2


def _cosines(x: Tensor) -> Tensor:
    """Return the orthonormal cosine transform of ``(..., H, W)``."""
    for _ in range(2):  # of the rows, and of the columns
        size = x.shape[-1]
        place = torch.arange(size, dtype=x.dtype, device=x.device)
        basis = torch.cos(torch.pi / size * (place + 0.5) * place[:, None])
        basis[0] *= 0.5**0.5
        x = ((2 / size) ** 0.5 * x @ basis.T).mT
    return x


def _edge_map(x: Tensor) -> Tensor:
    across, down = sobel(x, border="replicate")
    strength = across * across + down * down
    strength = torch.where(strength > 4 * strength.mean(dim=(-2, -1), keepdim=True), strength, 0)
    peaks = []
    for dim in (-2, -1):
        ends = F.pad(strength, (1, 1, 0, 0) if dim == -1 else (0, 0, 1, 1))
        before, after = (ends.narrow(dim, start, x.shape[dim]) for start in (0, 2))
        peaks.append((strength > before) & (strength > after))
    return (peaks[0] | peaks[1]).to(x.dtype)


_FEATURES: dict[Feature, Callable[[Tensor], Tensor]] = {
    "pixel": lambda x: x,
    "gradient": lambda x: central_differences(x, -1),
    "edge": _edge_map,
    "dct": _cosines,
}


def _levels(fused: Tensor, infrared: Tensor, visible: Tensor, stretched: bool) -> tuple[Tensor, Tensor, Tensor]:
    f, a, b = gray_levels(fused, infrared, visible)
    return (stretch(f), stretch(a), stretch(b)) if stretched else (f, a, b)


def _shared_and_total(first: Tensor, second: Tensor, unit: Unit) -> tuple[Tensor, Tensor]:
    """Return the mutual information of two pictures and the sum of their entropies."""
    joint = joint_histogram(first, second)
    total = shannon(joint.sum(2), unit=unit) + shannon(joint.sum(1), unit=unit)
    return (total - shannon(joint, unit=unit)).clamp_min(0), total


def _reduce(parts: list[Tensor], reduction: Reduction) -> Tensor:
    total = parts[0] + parts[1]
    return total if reduction == "sum" else total / 2
