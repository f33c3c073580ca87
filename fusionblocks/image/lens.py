"""A camera's lens: where straight lines become curves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

STEPS = 20
"""Steps in which a bent point is straightened."""


@dataclass(frozen=True, eq=False)
class Lens:
    """A pinhole camera with radial and tangential distortion (Brown-Conrady, as OpenCV has it).

    Args:
        camera: ``(3, 3)``: focal lengths and principal point, in pixels.
        distortion: ``(k1, k2, p1, p2, k3)``.

    Raises:
        ValueError: If a shape is another one or a focal length is not positive.

    Reference:
        "Close-range camera calibration", 1971.

    Example:
        >>> import numpy as np
        >>> from fusionblocks.image import Lens
        >>> lens = Lens(np.array([[300, 0, 160], [0, 300, 120], [0, 0, 1]]), (-0.2, 0, 0, 0, 0))
        >>> np.allclose(lens.straighten(lens.bend([[20.0, 30.0]])), [[20, 30]])
        True
    """

    camera: np.ndarray
    distortion: Any = (0.0, 0.0, 0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        camera = np.asarray(self.camera, np.float64)
        distortion = np.asarray(self.distortion, np.float64).reshape(-1)
        if camera.shape != (3, 3) or camera[0, 0] <= 0 or camera[1, 1] <= 0:
            raise ValueError(f"camera must be (3, 3) with positive focal lengths, got {camera.tolist()}")
        if distortion.size not in (4, 5):
            raise ValueError(f"distortion must be (k1, k2, p1, p2, k3), got {distortion.tolist()}")
        object.__setattr__(self, "camera", camera)
        object.__setattr__(self, "distortion", np.pad(distortion, (0, 5 - distortion.size)))

    def bend(self, points: Any) -> np.ndarray:
        """Return where pixels of the ideal pinhole camera lie in the real picture, ``(N, 2)``."""
        return self._pixels(self._bent(self._rays(points)))

    def straighten(self, points: Any) -> np.ndarray:
        """Return where pixels of the real picture lie in the ideal pinhole camera's, ``(N, 2)``."""
        bent = self._rays(points)
        rays = bent.copy()
        for _ in range(STEPS):
            rays = rays + (bent - self._bent(rays))
        return self._pixels(rays)

    def to_json(self) -> dict[str, Any]:
        """Return what :meth:`from_json` takes."""
        return {"camera": self.camera.tolist(), "distortion": self.distortion.tolist()}

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Return the lens that :meth:`to_json` wrote."""
        return cls(np.array(content["camera"], np.float64), content["distortion"])

    def _rays(self, points: Any) -> np.ndarray:
        points = np.asarray(points, np.float64).reshape(-1, 2)
        return (points - self.camera[:2, 2]) / [self.camera[0, 0], self.camera[1, 1]]

    def _pixels(self, rays: np.ndarray) -> np.ndarray:
        return rays * [self.camera[0, 0], self.camera[1, 1]] + self.camera[:2, 2]

    def _bent(self, rays: np.ndarray) -> np.ndarray:
        k1, k2, p1, p2, k3 = self.distortion
        x, y = rays[:, 0], rays[:, 1]
        square = x * x + y * y
        radial = 1 + square * (k1 + square * (k2 + square * k3))
        return np.stack(
            [
                x * radial + 2 * p1 * x * y + p2 * (square + 2 * x * x),
                y * radial + p1 * (square + 2 * y * y) + 2 * p2 * x * y,
            ],
            axis=1,
        )
