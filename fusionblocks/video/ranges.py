"""What becomes black and white in a thermal sequence, without a jump when something hot enters."""

from __future__ import annotations

from collections import deque

import numpy as np

from fusionblocks.image import auto_range

EVERY = 5
"""Frames between two whose range is taken."""
KEPT = 61
"""Ranges that count: those of the last 305 frames."""
PACE = 0.001
"""Share of the span that black and white move in a frame at most, a quarter of a gray level."""
LOST = 0.5
"""Share of a frame's pixels beyond black and white from which the range is of another scene."""
STRIKES = 3
"""Lost frames in a row after which the range begins anew; a shutter that closes for a frame or two does no harm."""


class AdaptiveRange:
    """A thermal range that follows the scene, not what passes through it.

    Black and white are the medians of what single frames of the last twelve seconds (at 25 a second) would take, so
    that nothing that stays for less than six of them counts, and they move by a quarter of a gray level a frame at
    most. When more than half of the pixels lie beyond them for three frames, another scene has begun, and so does the
    range.

    Example:
        >>> import numpy as np
        >>> from fusionblocks.video import AdaptiveRange
        >>> scene = np.linspace(29000, 30000, 4800).reshape(60, 80).astype(np.uint16)
        >>> hot = scene.copy()
        >>> hot[20:40, 20:40] = 36000
        >>> limits = AdaptiveRange()
        >>> limits.update(scene) == limits.update(hot) == limits.update(scene)
        True
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the sequence."""
        self.limits: tuple[float, float] | None = None
        self._kept: deque[tuple[float, float]] = deque(maxlen=KEPT)
        self._frame = -1
        self._strikes = 0

    def update(self, values: np.ndarray) -> tuple[float, float] | None:
        """Return the range for the next frame.

        Args:
            values: ``(H, W)`` or ``(H, W, C)`` in the camera's unit.

        Returns:
            What becomes black and white; None for 8-bit frames, whose levels stay.
        """
        if values.dtype == np.uint8:
            return None
        self._frame += 1
        self._strikes = self._strikes + 1 if self._lost(values) else 0
        if self.limits is None or self._strikes >= STRIKES:
            self._begin(values)
        elif self._frame % EVERY == 0:
            seen = auto_range(values)
            if seen is not None:
                self._kept.append(seen)
        if self.limits is not None:
            step = PACE * (self.limits[1] - self.limits[0])
            usual = np.median(np.array(self._kept), axis=0)
            low, high = (
                now + float(np.clip(goal - now, -step, step)) for now, goal in zip(self.limits, usual, strict=True)
            )
            self.limits = low, high
        return self.limits

    def _begin(self, values: np.ndarray) -> None:
        self.limits = auto_range(values)
        self._strikes = 0
        if self.limits is not None:
            # as if the first frame had been there all along, so that what enters next does not count
            self._kept.extend([self.limits] * KEPT)

    def _lost(self, values: np.ndarray) -> bool:
        if self.limits is None:
            return False
        sample = values[::8, ::8]
        return bool(((sample < self.limits[0]) | (sample > self.limits[1])).mean() > LOST)
