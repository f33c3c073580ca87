"""Pairs whose infrared picture lies elsewhere, with the truth: to train and to test alignment."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from fusionblocks._support.checks import check_number
from fusionblocks.data.transforms import PairedTransform
from fusionblocks.image.planar import corners_of, inside, sampling_grid, similarity


class PairedMisalign(PairedTransform):
    """Move the infrared picture of an item by a random map, as a camera beside the visible one sees it.

    The item gets ``misalignment``, ``(3, 3)`` float64: the map from the moved infrared pixels to the visible ones,
    pixel centres at integers, as ``matrix`` of :class:`fusionblocks.Alignment`; and ``infrared_seen``, ``(1, H, W)``: 1
    where the moved picture shows what was there, 0 where it is mirrored at its border, so that no edge gives the map
    away.

    Args:
        shift: Largest shift, as a share of the longer side.
        scale: Largest change of scale, in [0, 0.5]: 0.1 for 0.9 to 1.1.
        degrees: Largest turn.
        perspective: How far each corner moves besides, as a share of the sides.
        probability: How often an item is moved; else the map is the identity.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If one is out of its range.

    Example:
        >>> import torch
        >>> from fusionblocks.data import PairedMisalign
        >>> item = {"infrared": torch.rand(1, 48, 64), "visible": torch.rand(3, 48, 64)}
        >>> moved = PairedMisalign()(item, torch.Generator().manual_seed(0))
        >>> moved["misalignment"].shape, moved["infrared_seen"].shape
        (torch.Size([3, 3]), torch.Size([1, 48, 64]))
    """

    def __init__(
        self,
        *,
        shift: float = 0.06,
        scale: float = 0.1,
        degrees: float = 5.0,
        perspective: float = 0.0,
        probability: float = 1.0,
    ) -> None:
        self.shift = check_number("shift", shift, least=0, most=0.5)
        self.scale = check_number("scale", scale, least=0, most=0.5)
        self.degrees = check_number("degrees", degrees, least=0, most=45)
        self.perspective = check_number("perspective", perspective, least=0, most=0.25)
        self.probability = check_number("probability", probability, least=0, most=1)

    def __call__(self, item: dict[str, Any], generator: Generator | None = None) -> dict[str, Any]:
        infrared: Tensor = item["infrared"]
        height, width = infrared.shape[-2:]
        # drawn all always, so that the chance does not shift what follows
        chance, *draws = torch.rand(13, generator=generator, dtype=torch.float64).tolist()
        if chance >= self.probability:
            identity, seen = torch.eye(3, dtype=torch.float64), torch.ones_like(infrared[:1])
            return {**item, "misalignment": identity, "infrared_seen": seen}
        matrix = self._map(draws, height, width)
        grid = sampling_grid(matrix, (height, width), (height, width)).to(infrared)
        moved = F.grid_sample(infrared[None], grid, mode="bilinear", padding_mode="reflection", align_corners=True)[0]
        seen = inside(matrix, (height, width), (height, width)).to(infrared)[None]
        return {**item, "infrared": moved, "misalignment": torch.from_numpy(matrix), "infrared_seen": seen}

    def _map(self, draws: list[float], height: int, width: int) -> np.ndarray:
        """Return the map from moved to unmoved pixels, of twelve numbers in [0, 1)."""
        angle, length = 2 * math.pi * draws[0], self.shift * max(height, width) * draws[1]
        centre = ((width - 1) / 2, (height - 1) / 2)
        scale, turn = 1 + self.scale * (2 * draws[2] - 1), self.degrees * (2 * draws[3] - 1)
        matrix = similarity(scale, turn, (length * math.cos(angle), length * math.sin(angle)), centre)
        if self.perspective:
            corners = corners_of((height, width))
            jitter = (2 * np.array(draws[4:12]).reshape(4, 2) - 1) * self.perspective * [width, height]
            matrix = matrix @ _from_corners(corners, corners + jitter)
        return matrix / matrix[2, 2]


def _from_corners(here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Return the homography that takes four points to four others."""
    rows = []
    for (x, y), (u, v) in zip(here, there, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    return np.append(np.linalg.solve(np.array(rows), there.ravel()), 1).reshape(3, 3)
