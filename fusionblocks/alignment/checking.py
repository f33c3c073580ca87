"""A picture by which a person judges an alignment: the edges of one camera over the other's, before and after."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from fusionblocks.alignment.alignment import Alignment
from fusionblocks.alignment.estimation import gray_picture
from fusionblocks.alignment.features import slopes, smooth


def preview(rig: Alignment, infrared: Any, visible: Any) -> np.ndarray:
    """Return both cameras' edges over each other, before and after alignment, side by side.

    Infrared edges are red, visible ones cyan; where they lie on each other they are white. Before, the infrared picture
    is stretched to the visible one's size, as if both saw the same view.

    Args:
        rig: The alignment.
        infrared: An infrared picture of the rig: a path, a PIL image, an array or a tensor ``(C, H, W)``.
        visible: The visible one.

    Returns:
        ``(H, 2 W + 8, 3)`` uint8.

    Example:
        >>> import fusionblocks as fb
        >>> from fusionblocks.alignment import preview
        >>> scene = fb.data.synthetic_scene(10, height=120, width=160)
        >>> rig = fb.align(scene.infrared, scene.visible)
        >>> preview(rig, scene.infrared, scene.visible).shape
        (120, 328, 3)
    """
    here = torch.from_numpy(gray_picture("infrared", infrared, thermal=True))[None, None]
    there = torch.from_numpy(gray_picture("visible", visible))[None, None]
    size = (there.shape[-2], there.shape[-1])
    before = F.interpolate(here, size, mode="bilinear", antialias=True, align_corners=False)
    after = rig.warp(here, size)
    seen = torch.from_numpy(rig.soft_coverage(size))[None, None]
    # the border of the infrared view is not an edge of the scene
    inner = (seen >= 1).to(after)
    panes = [_panel(before, there, 1), np.full((size[0], 8, 3), 255, np.uint8), _panel(after, there, inner)]
    return np.concatenate(panes, axis=1)


def _panel(infrared: torch.Tensor, visible: torch.Tensor, inner: torch.Tensor | int) -> np.ndarray:
    red, cyan = (x[0, 0].numpy() for x in (_strength(infrared) * inner, _strength(visible)))
    return np.rint(255 * np.stack([red, cyan, cyan], axis=-1)).astype(np.uint8)


def _strength(x: torch.Tensor) -> torch.Tensor:
    along_x, along_y = slopes(smooth(x, 1.2))
    strength = (along_x**2 + along_y**2).sqrt()
    return (strength / (3 * smooth(strength, 20.0) + 1e-3)).clamp(0, 1)
