"""Losses of class maps: which pixels count, and what they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fusionblocks.losses import cross_entropy_loss, ohem_cross_entropy_loss, two_class_loss


def naive_ohem(logits: Tensor, labels: Tensor, threshold: float, n_min: int) -> Tensor:
    values = F.cross_entropy(logits, labels, ignore_index=255, reduction="none").flatten()
    values = values[labels.flatten() != 255]
    hard = values[values > -np.log(threshold)]
    return hard.mean() if len(hard) > n_min else values.sort(descending=True).values[:n_min].mean()


@pytest.mark.parametrize("n_min", [1, 100, 3000, 10**6])
@pytest.mark.parametrize("threshold", [0.1, 0.75, 1.0])
def test_hard_pixels(given: dict[str, Tensor], threshold: float, n_min: int) -> None:
    logits, labels = given["segmentation"].requires_grad_(), given["labels"].clone()
    labels[:, :5] = 255
    loss = ohem_cross_entropy_loss(logits, labels, threshold=threshold, n_min=n_min)
    expected = naive_ohem(logits, labels, threshold, n_min)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, logits)[0] for value in (loss, expected)))


def test_cross_entropy_is_that_of_torch_and_zero_without_labels(given: dict[str, Tensor]) -> None:
    logits, labels = given["segmentation"], given["labels"].clone()
    labels[0] = 255
    expected = F.cross_entropy(logits, labels, ignore_index=255)
    torch.testing.assert_close(cross_entropy_loss(logits, labels), expected)
    torch.testing.assert_close(cross_entropy_loss(logits, labels[:, None].to(torch.uint8)), expected)
    nothing = torch.full_like(labels, 255)
    for loss in (cross_entropy_loss, ohem_cross_entropy_loss):
        trained = logits.clone().requires_grad_()
        value = loss(trained, nothing)
        assert value == 0
        assert not torch.autograd.grad(value, trained)[0].any()


def test_two_classes_are_two_classifiers(given: dict[str, Tensor]) -> None:
    logits, labels = given["binary"], given["binary_labels"]
    one_hot = F.one_hot(labels[:, 0].long(), 2).permute(0, 3, 1, 2).double()
    weights = torch.tensor([1.4548, 19.8962], dtype=torch.float64).view(1, 2, 1, 1)
    expected = F.binary_cross_entropy_with_logits(logits, one_hot, pos_weight=weights)
    for given_labels in (labels, labels[:, 0].long(), labels.double()):
        value = two_class_loss(logits, given_labels, positive_weights=(1.4548, 19.8962))
        torch.testing.assert_close(value, expected)


def test_two_classes_leave_out_pixels_of_no_class(given: dict[str, Tensor]) -> None:
    logits, labels = given["binary"].requires_grad_(), given["binary_labels"].long()
    weights = (1.4548, 19.8962)
    whole = two_class_loss(logits, labels, positive_weights=weights)
    labels[..., 6:] = 255
    expected = two_class_loss(logits[..., :6], labels[..., :6], positive_weights=weights)
    for some in (labels, labels[:, 0].to(torch.uint8), labels.double()):
        value = two_class_loss(logits, some, positive_weights=weights)
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
        gradient = torch.autograd.grad(value, logits)[0]
        assert gradient[..., :6].any()
        assert not gradient[..., 6:].any()
    assert whole != expected
    nothing = two_class_loss(logits, torch.full_like(labels, 255), positive_weights=weights)
    assert nothing == 0
    assert not torch.autograd.grad(nothing, logits)[0].any()
    half = two_class_loss(logits.half(), labels.half())
    torch.testing.assert_close(half.double(), two_class_loss(logits, labels), rtol=2e-3, atol=0)


@pytest.mark.parametrize("name", ["cross_entropy", "ohem_cross_entropy"])
def test_pixels_of_no_class_change_nothing(given: dict[str, Tensor], name: str) -> None:
    loss = {"cross_entropy": cross_entropy_loss, "ohem_cross_entropy": ohem_cross_entropy_loss}[name]
    logits, labels = given["segmentation"].requires_grad_(), given["labels"].clone()
    labels[..., 6:] = 255
    value, expected = loss(logits, labels), loss(logits[..., :6], labels[..., :6])
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    assert not torch.autograd.grad(value, logits)[0][..., 6:].any()
    # a further label to ignore is ignored as well as 255, not in its place
    labels[..., :2, :] = 3
    further = loss(logits, labels, ignore_index=3)
    torch.testing.assert_close(further, loss(logits, torch.where(labels == 3, 255, labels)), rtol=0, atol=0)
    assert further != loss(logits, labels)
