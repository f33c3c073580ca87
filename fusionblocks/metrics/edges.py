"""Edges of the sources that the fused picture preserves, and edges that fusion made up."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor

from fusionblocks._support.checks import check_choice
from fusionblocks.image.edges import artificial_edges, halfturn_artificial_edges, preserved_edges, without_border
from fusionblocks.image.filters import add_border
from fusionblocks.image.windows import sum_windows
from fusionblocks.metrics._inputs import gray_levels


def edge_preservation(
    fused: Tensor, infrared: Tensor, visible: Tensor, *, variant: Literal["cddfuse", "vifb"] = "cddfuse"
) -> Tensor:
    r"""Return Qabf, the share of the sources' edges that the fused picture preserves.

    At every pixel the Sobel gradient of the fused picture is compared to that of a source, in strength :math:`g` and
    in orientation :math:`\alpha`:

    .. math::
        G = \frac{\min(g_f, g_s)}{\max(g_f, g_s)}, \quad
        A = 1 - \frac{|\alpha_f - \alpha_s|}{\pi / 2}, \quad
        Q_s = \frac{0.9994}{1 + e^{-15 (G - 0.5)}} \cdot \frac{0.9879}{1 + e^{-22 (A - 0.8)}}

        Q^{ab/f} = \frac{\sum (Q_a g_a + Q_b g_b)}{\sum (g_a + g_b)}

    Range: 0 to 1 (a picture fused of itself scores about 0.975). Higher is better. Beyond the edge the pictures are
    black, so that a bright constant picture has edges along its sides; two black sources have none, which scores 0.
    Where both strengths are equal, :math:`G` is the strength itself in every published evaluator: on gray levels 0..255
    for ``variant="cddfuse"``, on these times 255 for ``"vifb"``, which moves the result by less than 0.001.
    Differentiable almost everywhere.

    Args:
        fused: ``(B, 1, H, W)``, ``uint8`` gray levels or float in [0, 1].
        infrared: As ``fused``.
        visible: As ``fused``.
        variant: Whose evaluator's scale of the pictures.

    Returns:
        ``(B,)``, float64.

    Raises:
        TypeError: A picture is not a tensor or has another dtype.
        ValueError: Shapes differ, values are out of range, or ``variant`` is unknown.

    Reference:
        Objective Image Fusion Performance Measure (2000).

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import edge_preservation
        >>> infrared, visible = torch.rand(2, 1, 1, 16, 16)
        >>> float(edge_preservation(visible, visible, visible)) > 0.97
        True
    """
    pictures = add_border(torch.stack(gray_levels(fused, infrared, visible)), 1, "zero")
    check_choice("variant", variant, ("cddfuse", "vifb"))
    edges = partial(preserved_edges, scale=255.0 if variant == "vifb" else 1.0)
    preserved, present = sum_windows(without_border(edges), pictures, 3)
    none = present == 0
    return torch.where(none, 0.0, preserved / present.masked_fill(none, 1.0))


def fusion_artifacts(
    fused: Tensor,
    infrared: Tensor,
    visible: Tensor,
    *,
    variant: Literal["standard", "psfusion"] = "standard",
    stronger_than: Literal["both", "infrared"] = "both",
) -> Tensor:
    r"""Return Nabf, the share of edges that fusion made up.

    Strength and orientation are preserved to :math:`Q_s = \sqrt{Q_g Q_\alpha}`, as in Qabf but for the constants and
    mirrored edges of the picture; a source's pixel weighs :math:`w = 0.001\,g^{1.5}`, and 0.001 where its gradient is
    below 2:

    .. math::
        N^{ab/f} = \frac{\sum m \bigl((1 - Q_a) w_a + (1 - Q_b) w_b\bigr)}{\sum (w_a + w_b)}

    with :math:`m = 1` where the fused picture's gradient is stronger than those of both sources
    (``stronger_than="both"``, the definition). SMFNet's evaluator compares to its first source alone, the infrared
    picture: ``stronger_than="infrared"`` gives its number, which changes when the sources change places.

    ``variant="psfusion"`` gives the number of the evaluator of PSFusion's authors, which hands the pictures over in
    another order: it takes the *infrared* picture for the fused one, the visible and the fused one for its sources. So
    it says how many edges of the infrared picture are in neither of the others, which is not what its name says. Its
    gradients are an eighth as strong, orientations are folded to half a turn, and the picture's edge is mirrored
    without repeating it.

    Range: 0 to 1. Lower is better.

    Args:
        fused: ``(B, 1, H, W)``, ``uint8`` gray levels or float in [0, 1].
        infrared: As ``fused``.
        visible: As ``fused``.
        variant: The definition, or what a published evaluator made of it.
        stronger_than: Which source's gradient an artifact exceeds, in the standard variant.

    Returns:
        ``(B,)``, float64.

    Raises:
        TypeError: A picture is not a tensor or has another dtype.
        ValueError: Shapes differ, values are out of range, or an option is unknown.

    Reference:
        Multifocus and Multispectral Image Fusion Based on Pixel Significance Using Discrete Cosine Harmonic Wavelet
        Transform (2013), after Objective Image Fusion Performance Characterisation (2005).

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import fusion_artifacts
        >>> infrared, visible = torch.rand(2, 1, 1, 16, 16)
        >>> fusion_artifacts(visible, visible, visible)
        tensor([0.], dtype=torch.float64)
    """
    f, a, b = gray_levels(fused, infrared, visible)
    check_choice("variant", variant, ("standard", "psfusion"))
    check_choice("stronger_than", stronger_than, ("both", "infrared"))
    if variant == "psfusion":
        pictures, edges = add_border(torch.stack((a, b, f)), 1, "reflect"), halfturn_artificial_edges
    else:
        pictures = add_border(torch.stack((f, a, b)), 1, "replicate")
        edges = partial(artificial_edges, stronger_than=stronger_than)
    artificial, total = sum_windows(without_border(edges), pictures, 3)
    return artificial / total
