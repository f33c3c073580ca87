"""What the scores of a fused picture hide: pixels burnt out or crushed, and detail that neither source has."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fusionblocks.metrics._inputs import gray_levels
from fusionblocks.metrics.statistics import average_gradient, entropy, spatial_frequency

WHITE, BLACK = 254, 1
"""Levels from which a pixel is burnt out, and up to which it is crushed."""
MOST = 0.005
"""Share of a picture's pixels that may be burnt or crushed without a remark."""
MORE = 0.75
"""Bits by which the entropy may exceed that of the richer source."""


class Remarks:
    """Collects what scores hide, over many pictures of one method.

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import Remarks
        >>> dim = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0)) / 2
        >>> remarks = Remarks()
        >>> remarks.update((4 * dim).clamp(max=1), dim, dim)
        >>> print(remarks.lines()[0])
        50.8 % of the pixels are burnt out that are so in neither source
    """

    def __init__(self) -> None:
        self._burnt: list[float] = []
        self._crushed: list[float] = []
        self._beyond: dict[str, list[float]] = {"EN": [], "SF": [], "AG": []}

    def update(self, fused: Tensor, infrared: Tensor, visible: Tensor) -> None:
        """Look at a batch.

        Args:
            fused: ``(B, 1, H, W)``, ``uint8`` gray levels or float in [0, 1].
            infrared: As ``fused``.
            visible: As ``fused``.

        Raises:
            TypeError: A picture is not a tensor or has an unfit dtype.
            ValueError: A picture has an unfit shape or values outside [0, 1].
        """
        f, a, b = (x.round() for x in gray_levels(fused, infrared, visible))
        brighter, darker = torch.maximum(a, b), torch.minimum(a, b)
        self._burnt += ((f >= WHITE) & (brighter < WHITE)).double().mean((1, 2, 3)).tolist()
        self._crushed += ((f <= BLACK) & (darker > BLACK)).double().mean((1, 2, 3)).tolist()
        levels = [x.to(torch.uint8) for x in (f, a, b)]
        for name, measure in {"EN": entropy, "SF": spatial_frequency, "AG": average_gradient}.items():
            of_fused, of_a, of_b = (measure(x) for x in levels)
            # the detail of both sources together, if none of it cancels
            bound = torch.maximum(of_a, of_b) + MORE if name == "EN" else (of_a.square() + of_b.square()).sqrt()
            self._beyond[name] += (of_fused / bound.clamp_min(1e-9)).tolist()

    def lines(self) -> list[str]:
        """Return a sentence for each thing that scores hide, none where all is well."""
        found = []
        for what, shares in (("burnt out", self._burnt), ("crushed to black", self._crushed)):
            share = _mean(shares)
            if share > MOST:
                found.append(f"{100 * share:.1f} % of the pixels are {what} that are so in neither source")
        for name, ratios in self._beyond.items():
            if _mean(ratios) > 1:
                high = "higher than a fusion of these sources explains" if name == "EN" else (
                    f"{_mean(ratios):.2f} times that of both sources together"
                )  # fmt: skip
                found.append(f"{name} is {high}: noise and clipping raise it")
        return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
