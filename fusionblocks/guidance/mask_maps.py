"""From a set of masks to the one picture that a network takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

ENCODINGS = ("index", "binary", "score", "edges")

# N masks of one picture, H and W its size


def masks_to_map(
    masks: Tensor | np.ndarray | Sequence[Mapping[str, Any]],
    encoding: str = "index",
    *,
    scores: Tensor | np.ndarray | Sequence[float] | None = None,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Return a set of masks as one map in [0, 1], the same whatever order the masks come in.

    Masks may overlap. They are painted from the largest to the smallest, so that a small one stays visible on a large
    one; of masks with equal areas, the order is that of their pixels, read row by row as a binary number. Empty masks
    count as none, equal masks as one with the best of their scores. A pixel in no mask is 0. SGDFuse's authors
    published no encoding; these are this library's:

    ``"index"``
        The uppermost mask's place in that order, from ``1 / N`` (the largest) to 1 (the smallest).
    ``"binary"``
        1 in any mask.
    ``"score"``
        The uppermost mask's score, the IoU that SAM predicts for it.
    ``"edges"``
        1 on the outline of any mask: its pixels with one of their four neighbours outside it. The picture's border
        is not an outline.

    Args:
        masks: ``(N, H, W)`` of booleans or zeros and ones; or what ``SamAutomaticMaskGenerator.generate`` returns, a
            sequence of records with a ``"segmentation"`` ``(H, W)`` and a ``"predicted_iou"``.
        encoding: ``"index"``, ``"binary"``, ``"score"`` or ``"edges"``.
        scores: A score for each mask ``(N,)``; clipped to [0, 1]. Records bring their own.
        size: ``(H, W)``, for an empty sequence of records, which does not tell.

    Returns:
        Float32 map ``(1, H, W)`` in [0, 1].

    Raises:
        TypeError: If ``masks`` is of another type.
        ValueError: If the encoding is unknown, a shape or value is wrong, scores are missing, or the size is unknown.

    Example:
        >>> import torch
        >>> from fusionblocks.guidance import masks_to_map
        >>> masks = torch.zeros(2, 2, 4, dtype=torch.bool)
        >>> masks[0, :, :3] = True
        >>> masks[1, 0, 1] = True
        >>> masks_to_map(masks)
        tensor([[[0.5000, 1.0000, 0.5000, 0.0000],
                 [0.5000, 0.5000, 0.5000, 0.0000]]])
        >>> masks_to_map(masks, "edges")
        tensor([[[0., 1., 1., 0.],
                 [0., 0., 1., 0.]]])
    """
    check_encoding(encoding)
    if not isinstance(masks, Tensor | np.ndarray):
        if scores is not None:
            raise ValueError("scores must be None for records, which bring their own (predicted_iou)")
        masks, scores = _from_records(masks, size)
    stack = _booleans(masks)
    if size is not None and stack.shape[1:] != tuple(size):
        raise ValueError(f"masks must have the given size {tuple(size)}, got {stack.shape[1:]}")
    if encoding == "score" and scores is None:
        raise ValueError("scores must be given for encoding='score', one for each mask")
    values = np.ones(len(stack), np.float32) if scores is None else _scores(scores, len(stack))

    layers = _distinct(stack, values)
    painted = np.zeros(stack.shape[1:], np.float32)
    for index, (mask, score) in enumerate(layers, start=1):
        if encoding == "edges":
            painted[_outline(mask)] = 1
        else:
            painted[mask] = {"index": index / len(layers), "binary": 1, "score": score}[encoding]
    return torch.from_numpy(painted)[None]


def map_to_levels(mask_map: Tensor) -> np.ndarray:
    """Return a map ``(1, H, W)`` as gray levels ``(H, W)``: uint8, or uint16 where 256 levels would merge values."""
    values = mask_map[0].detach().cpu().double().numpy()
    for dtype in (np.uint8, np.uint16):
        levels = np.rint(values * np.iinfo(dtype).max).astype(dtype)
        if len(np.unique(levels)) == len(np.unique(values)):
            break
    return levels


def check_encoding(encoding: str) -> None:
    """Raise unless ``encoding`` is one of :data:`ENCODINGS`."""
    if encoding not in ENCODINGS:
        raise ValueError(f"encoding must be one of {', '.join(ENCODINGS)}, got {encoding!r}")


def _from_records(records: Any, size: tuple[int, int] | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the masks ``(N, H, W)`` and predicted IoUs ``(N,)`` of segment-anything's records."""
    if not isinstance(records, Sequence) or not all(isinstance(record, Mapping) for record in records):
        raise TypeError(f"masks must be a tensor or array (N, H, W) or a sequence of records, got {records!r:.80}")
    if not records:
        if size is None:
            raise ValueError("size must be given for an empty sequence of masks")
        return np.zeros((0, *size), bool), np.zeros(0)
    for key in ("segmentation", "predicted_iou"):
        if any(key not in record for record in records):
            raise ValueError(f"masks must be records with {key!r}; one has {', '.join(map(repr, records[0]))}")
    found = [record["segmentation"] for record in records]
    shapes = {np.shape(mask) if isinstance(mask, Tensor | np.ndarray) else type(mask).__name__ for mask in found}
    if len(shapes) > 1 or len(np.shape(found[0])) != 2:
        raise ValueError(f"each segmentation must be an array (H, W) of one size, got {', '.join(map(str, shapes))}")
    return np.stack([np.asarray(mask) for mask in found]), np.array([r["predicted_iou"] for r in records], float)


def _booleans(masks: Tensor | np.ndarray) -> np.ndarray:
    stack = masks.detach().cpu().numpy() if isinstance(masks, Tensor) else masks
    if stack.ndim != 3 or 0 in stack.shape[1:]:
        raise ValueError(f"masks must have shape (N, H, W) with at least one pixel, got {stack.shape}")
    if stack.dtype != bool and not np.isin(stack, (0, 1)).all():
        raise ValueError("masks must be booleans or zeros and ones, got other values")
    return stack.astype(bool)


def _scores(scores: Any, count: int) -> np.ndarray:
    values = np.asarray(scores.detach().cpu() if isinstance(scores, Tensor) else scores, np.float32)
    if values.shape != (count,):
        raise ValueError(f"scores must have shape ({count},), one for each mask, got {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("scores must be finite")
    return values.clip(0, 1)


def _distinct(stack: np.ndarray, scores: np.ndarray) -> list[tuple[np.ndarray, float]]:
    """Return the masks that are not empty with their scores, each once, in the order in which they are painted."""
    best: dict[tuple[int, bytes], tuple[np.ndarray, float]] = {}
    for mask, score in zip(stack, scores.tolist()):
        area = int(mask.sum())
        key = (-area, np.packbits(mask).tobytes())
        if area and (key not in best or score > best[key][1]):
            best[key] = (mask, score)
    return [best[key] for key in sorted(best)]


def _outline(mask: np.ndarray) -> np.ndarray:
    around = np.pad(mask, 1, mode="edge")  # the picture's border has no outside
    inside = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return mask & ~inside
