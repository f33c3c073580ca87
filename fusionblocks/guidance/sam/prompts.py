"""Boxes and clicks as prompts of segment-anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

# N prompts, K clicks of one; H and W the picture's size


@dataclass(frozen=True)
class SAMPrompts:
    """Boxes and clicks in pixels of a picture; each box and each set of clicks asks for one mask.

    Args:
        boxes: ``(N, 4)``: left, top, right and bottom of each.
        points: ``(N, 2)``: x and y of one click on each object; or ``(N, K, 2)``: K clicks for each.
        labels: Of the points, ``(N,)`` or ``(N, K)``: 1 is a click on the object, 0 one beside it. None: all on it.
    """

    boxes: Any = None
    points: Any = None
    labels: Any = None


class LocatedPrompts(NamedTuple):
    """Prompts that were checked against a picture: boxes ``(N, 4)``, points ``(N, K, 2)`` and labels ``(N, K)``."""

    boxes: np.ndarray
    points: np.ndarray
    labels: np.ndarray


def locate(prompts: SAMPrompts, size: tuple[int, int]) -> LocatedPrompts:
    """Return prompts as arrays, refusing shapes and places that a picture of ``size`` does not have.

    Raises:
        TypeError: If something is not an array of numbers.
        ValueError: If a shape is wrong, a prompt lies outside the picture, a label is not 0 or 1, or there is none.
    """
    boxes = _array("boxes", prompts.boxes, (0, 4))
    points = _array("points", prompts.points, (0, 1, 2))
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must have shape (N, 4), got {boxes.shape}")
    if points.ndim == 2:
        points = rearrange(points, "n xy -> n 1 xy")
    if points.ndim != 3 or points.shape[2] != 2 or points.shape[1] < 1:
        raise ValueError(f"points must have shape (N, 2) or (N, K, 2), got {np.shape(prompts.points)}")
    labels = _array("labels", prompts.labels, points.shape[:2], fill=1)
    if labels.ndim == 1:
        labels = rearrange(labels, "n -> n 1")
    if labels.shape != points.shape[:2] or not np.isin(labels, (0, 1)).all():
        raise ValueError(f"labels must be 0 or 1 for each point, of shape {points.shape[:2]}, got {prompts.labels!r}")
    if len(boxes) + len(points) == 0:
        raise ValueError("prompts must hold a box or a point")
    for name, places in {"boxes": boxes.reshape(-1, 2), "points": points.reshape(-1, 2)}.items():
        if not ((places >= 0) & (places <= np.array(size[::-1]))).all():
            raise ValueError(f"{name} must lie in the picture, {size[1]} pixels wide and {size[0]} high, got {places}")
    if not (boxes[:, :2] < boxes[:, 2:]).all():
        raise ValueError(f"boxes must be left, top, right, bottom with left < right and top < bottom, got {boxes}")
    return LocatedPrompts(boxes, points, labels)


@torch.no_grad()
def predict(sam: Any, image: np.ndarray, prompts: LocatedPrompts, batch: int) -> tuple[Tensor, Tensor]:
    """Return a mask for each prompt, ``(N, H, W)``, boxes first, and the predicted IoUs ``(N,)``.

    One click may mean a part or the whole: of SAM's three masks the one that it holds best is taken.
    """
    from segment_anything import SamPredictor

    predictor = SamPredictor(sam)
    predictor.set_image(image)
    size = image.shape[:2]
    boxes = torch.from_numpy(predictor.transform.apply_boxes(prompts.boxes, size)).float().to(sam.device)
    points = torch.from_numpy(predictor.transform.apply_coords(prompts.points, size)).float().to(sam.device)
    labels = torch.from_numpy(prompts.labels).int().to(sam.device)
    masks, scores = [torch.zeros(0, *size, dtype=torch.bool)], [torch.zeros(0)]
    for part in boxes.split(batch) if len(boxes) else ():
        found, iou, _ = predictor.predict_torch(None, None, boxes=part, multimask_output=False)
        masks.append(found[:, 0].cpu())
        scores.append(iou[:, 0].cpu())
    for part, label in zip(points.split(batch), labels.split(batch)) if len(points) else ():
        found, iou, _ = predictor.predict_torch(part, label, multimask_output=part.shape[1] == 1)
        best = iou.argmax(dim=1, keepdim=True)
        masks.append(found.take_along_dim(rearrange(best, "n 1 -> n 1 1 1"), dim=1)[:, 0].cpu())
        scores.append(iou.take_along_dim(best, dim=1)[:, 0].cpu())
    return torch.cat(masks), torch.cat(scores)


def _array(name: str, value: Any, shape: tuple[int, ...], fill: float = 0) -> np.ndarray:
    if value is None:
        return np.full(shape, fill, np.float64)
    try:
        array = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value, np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be an array of numbers, got {value!r:.80}") from error
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite")
    return array
