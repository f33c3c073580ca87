"""Masks from labels."""

from __future__ import annotations

import pytest
import torch

from fusionblocks.data import boundary_mask, class_mask


def neighbours(labels: torch.Tensor, width: int) -> torch.Tensor:
    """The definition, pixel by pixel."""
    rows, columns = labels.shape
    at_border = torch.zeros(rows, columns, dtype=torch.bool)
    for i in range(rows):
        for j in range(columns):
            around = [(i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)]
            around = [(a, b) for a, b in around if 0 <= a < rows and 0 <= b < columns and labels[a, b] != 255]
            at_border[i, j] = labels[i, j] != 255 and any(labels[a, b] != labels[i, j] for a, b in around)
    grown = torch.zeros_like(at_border)
    for i, j in at_border.nonzero().tolist():
        grown[max(0, i - width + 1) : i + width, max(0, j - width + 1) : j + width] = True
    return grown & (labels != 255)


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_boundaries_are_where_classes_meet(width: int, dtype: torch.dtype) -> None:
    labels = torch.zeros(2, 12, 14, dtype=dtype)
    labels[0, 3:7, 5:9] = 4
    labels[0, 10, 2] = 2
    labels[1, :, 7:] = 1
    labels[1, 4:8, 4:9] = 255  # no class, across the border
    labels[1, 9, 2] = 255  # and within one
    marked = boundary_mask(labels, width=width)
    assert marked.dtype == torch.bool
    assert all(torch.equal(marked[index], neighbours(labels[index], width)) for index in range(2))
    assert not boundary_mask(torch.full((3, 5), 2), width=width).any()
    assert boundary_mask(torch.tensor([[1, 1, 2]], dtype=torch.int8)).tolist() == [[False, True, True]]


def test_chosen_classes_are_marked() -> None:
    labels = torch.tensor([[0, 1, 2], [3, 255, 1]], dtype=torch.uint8)
    assert class_mask(labels, (1, 3)).tolist() == [[False, True, False], [True, False, True]]
    assert not class_mask(labels, ()).any()


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (torch.rand(2, 2), TypeError, "labels must be integers, got torch.float32"),
        ([[1]], TypeError, "labels must be a tensor of integers"),
        (torch.tensor([1, 2]), ValueError, r"labels must have shape \(..., H, W\), got \(2,\)"),
    ],
)
def test_what_is_refused(labels: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        boundary_mask(labels)  # type: ignore[arg-type]
    with pytest.raises(error, match=message):
        class_mask(labels, (1,))  # type: ignore[arg-type]
