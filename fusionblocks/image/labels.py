"""Label maps: a class number a pixel, and the one number that stands for no class."""

from __future__ import annotations

from torch import Tensor

#: The label of pixels that belong to no class, or whose class nobody knows. It is ignored everywhere: in masks that are
#: derived from labels, in losses and in scores. So there can be no more than 255 classes, 0 to 254.
VOID = 255


def with_void(labels: Tensor, ignore_index: int | None) -> Tensor:
    """Return labels with ``VOID`` in the place of a further label to ignore, if there is one."""
    if ignore_index is None or ignore_index == VOID:
        return labels
    return labels.masked_fill(labels == ignore_index, VOID)


def check_class_count(name: str, count: int) -> None:
    """Raise if there are so many classes that one would have the number of ``VOID``."""
    if count > VOID:
        raise ValueError(f"{name} must be at most {VOID}, because the label {VOID} stands for no class, got {count}")
