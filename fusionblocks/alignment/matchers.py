"""The map between two cameras from points that a learned matcher finds in both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusionblocks.alignment.alignment import Alignment
from fusionblocks.alignment.points import fit, simplest
from fusionblocks.image.planar import mapped, mean_displacement

NEAR = 0.006
"""Distance of a point from where the map puts it, as a share of the visible picture's longer side, that is no error."""
ENOUGH = 16
"""Points that agree, at least, for a map to be reliable."""
JUDGED = 200
"""Points by which the model is chosen, at most."""

Matcher = Callable[[Tensor, Tensor], Any]


def open_matcher(matcher: str | Matcher) -> Matcher:
    """Return a matcher by its name in vismatch, or the one that is given.

    Raises:
        ImportError: If a name is given and vismatch is not installed.
        TypeError: If it is neither a name nor callable.
    """
    if not isinstance(matcher, str):
        if not callable(matcher):
            raise TypeError(f"matcher must be a name or callable, got {type(matcher).__name__}")
        return matcher
    try:
        from vismatch import get_matcher
    except ImportError as error:
        raise ImportError(f"matcher {matcher!r} needs vismatch: pip install vismatch") from error
    return get_matcher(matcher, device="cuda" if torch.cuda.is_available() else "cpu")


def from_matches(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], matcher: str | Matcher, model: str | None
) -> Alignment:
    """Return the alignment that the matches of all pairs together tell.

    Args:
        pairs: Gray pictures ``(h, w)`` and ``(H, W)`` float32 in [0, 1].
        matcher: As for :func:`fusionblocks.align`.
        model: The map's model, or None for the simplest that explains the points.

    Raises:
        ImportError: If vismatch or OpenCV is needed and not installed.
        ValueError: If fewer than four points agree, or the matcher returns something else than matches.
    """
    try:
        import cv2
    except ImportError as error:
        raise ImportError("matches are sifted by OpenCV: pip install 'fusionblocks[align]'") from error
    find = open_matcher(matcher)
    sizes = pairs[0][0].shape, pairs[0][1].shape
    points = np.concatenate([_matches(find, infrared, visible) for infrared, visible in pairs])
    near = NEAR * max(sizes[1])
    kept = np.zeros(len(points), bool)
    if len(points) >= 4:
        _, found = cv2.findHomography(points[:, :2], points[:, 2:], cv2.USAC_MAGSAC, near, None, 5000, 0.999)
        kept = np.zeros(len(points), bool) if found is None else found[:, 0].astype(bool)
    agreeing = points[kept]
    if len(agreeing) < 4:
        raise ValueError(f"the matcher's {len(points)} points tell no map: fewer than four agree")
    chosen = model or simplest(agreeing[:: max(1, len(agreeing) // JUDGED)])
    matrix = fit(agreeing, chosen)
    first, second = (fit(part, chosen) if len(part) >= 4 else np.eye(3) for part in (agreeing[::2], agreeing[1::2]))
    apart = mean_displacement(first, second, *sizes)
    spread = float(np.linalg.norm(mapped(matrix, agreeing[:, :2]) - agreeing[:, 2:], axis=1).mean())
    reliable = len(agreeing) >= ENOUGH and len(agreeing) >= 0.15 * len(points) and apart <= 2 * near
    expected = max(apart / 2, spread / np.sqrt(len(agreeing)))
    return Alignment(matrix, *sizes, error=expected, reliable=bool(reliable), model=chosen)


def _matches(find: Matcher, infrared: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Return infrared x and y, visible x and y of each match, ``(N, 4)`` float64."""
    pictures = (torch.from_numpy(np.ascontiguousarray(x))[None].expand(3, -1, -1) for x in (infrared, visible))
    with torch.inference_mode():
        found = find(*pictures)
    if isinstance(found, dict) and {"matched_kpts0", "matched_kpts1"} <= set(found):
        found = np.concatenate([np.asarray(found[name], np.float64) for name in ("matched_kpts0", "matched_kpts1")], 1)
    found = found.detach().cpu().numpy() if isinstance(found, Tensor) else np.asarray(found, np.float64)
    if found.ndim != 2 or found.shape[1] != 4:
        raise ValueError(
            "matcher must return an array (N, 4) of infrared x and y, visible x and y, or a dict with matched_kpts0 "
            f"and matched_kpts1, got shape {found.shape}"
        )
    return found[np.isfinite(found).all(axis=1)].astype(np.float64)
