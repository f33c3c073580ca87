from __future__ import annotations

import builtins
import sys

import numpy as np
import pytest
import torch

from fusionblocks.metrics import mean_iou


def maps(seed: int, classes: int = 5) -> torch.Tensor:
    return torch.randint(0, classes, (3, 16, 20), generator=torch.Generator().manual_seed(seed))


def by_counting(prediction: np.ndarray, labels: np.ndarray, classes: list[int], ignore: int | None) -> float:
    scores = []
    for c in classes:
        counts = labels != ignore if ignore is not None else np.ones_like(labels, dtype=bool)
        both = ((prediction == c) & (labels == c) & counts).sum()
        either = (((prediction == c) | (labels == c)) & counts).sum()
        if either:
            scores.append(both / either)
    return float(np.mean(scores))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
@pytest.mark.parametrize("void", [False, True])
@pytest.mark.parametrize("ignore", [None, 255, 0])
def test_against_counting(ignore: int | None, void: bool, dtype: torch.dtype) -> None:
    prediction, labels = maps(0), maps(1)
    prediction = torch.where(
        torch.rand(labels.shape, generator=torch.Generator().manual_seed(2)) < 0.7, labels, prediction
    )
    classes = [c for c in range(5) if c != ignore]
    expected = by_counting(prediction[:, 4:].numpy(), labels[:, 4:].numpy(), classes, ignore)
    if void:
        labels[:, :4] = 255
    else:
        prediction, labels = prediction[:, 4:], labels[:, 4:]
    score = mean_iou(prediction.to(dtype), labels.to(dtype), 5, ignore_index=ignore)
    assert score.dtype == torch.float64
    assert score.item() == pytest.approx(expected, rel=1e-6)


def test_by_hand() -> None:
    labels = torch.tensor([[[0, 0, 1, 1]]])
    assert mean_iou(labels, labels, 2).item() == 1
    assert mean_iou(1 - labels, labels, 2).item() == 0
    assert mean_iou(labels, labels, 9).item() == 1  # seven classes occur nowhere
    # pixels are pooled: 3 of 4 in one picture, 1 of 4 in the other
    two = torch.zeros(2, 2, 2, dtype=torch.int64)
    wrong = torch.tensor([[[0, 0], [0, 1]], [[0, 1], [1, 1]]])
    assert mean_iou(wrong, two, 2).item() == pytest.approx((4 / 8 + 0) / 2)


def test_scores_of_a_head() -> None:
    labels = maps(0)
    scores = torch.randn(3, 5, 16, 20, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(mean_iou(scores, labels, 5), mean_iou(scores.argmax(1), labels, 5), rtol=0, atol=0)


def test_errors_name_what_is_wrong() -> None:
    labels = maps(0)
    cases = [
        (ValueError, r"same size, got \(3, 8, 20\) and \(3, 16, 20\)", (labels[:, :8], labels, 5), {}),
        (ValueError, "labels must be in 0..3 or 255, got 4", (labels.clamp_max(3), labels, 4), {}),
        (
            ValueError,
            "labels must be in 0..4 or 255, got 9",
            (labels, torch.full_like(labels, 9), 5),
            {"ignore_index": 255},
        ),
        (
            ValueError,
            "prediction must be in 0..4, got 255",
            (torch.full_like(labels, 255), labels, 5),
            {"ignore_index": 255},
        ),
        (ValueError, "a pixel that counts, got 255 everywhere", (labels, torch.full_like(labels, 255), 5), {}),
        (ValueError, "got 0 or 255 everywhere", (labels, 255 * (labels > 2), 5), {"ignore_index": 0}),
        (ValueError, "num_classes must be at most 255, .* got 256", (labels, labels, 256), {}),
        (ValueError, "5 channels of scores, got", (torch.rand(3, 4, 16, 20), labels, 5), {}),
        (ValueError, "finite scores", (torch.full((3, 5, 16, 20), torch.nan), labels, 5), {}),
        (ValueError, "num_classes must be a number of at least 2, got 1", (labels, labels, 1), {}),
        (ValueError, r"labels must have shape \(B, H, W\), got \(16, 20\)", (labels, labels[0], 5), {}),
        (TypeError, "labels must be integers, got torch.float32", (labels, labels.float(), 5), {}),
        (TypeError, "prediction must be integer classes or scores", (labels.float(), labels, 5), {}),
        (TypeError, "prediction must be a tensor, got list", ([0], labels, 5), {}),
    ]
    for error, message, arguments, options in cases:
        with pytest.raises(error, match=message):
            mean_iou(*arguments, **options)


def test_without_torchmetrics(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest):
        if name.startswith("torchmetrics"):
            raise ImportError(name)
        return real(name, *rest)

    for module in [name for name in sys.modules if name.startswith("torchmetrics")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", refuse)
    labels = maps(0)
    with pytest.raises(ImportError, match=r"pip install fusionblocks\[metrics\]"):
        mean_iou(labels, labels, 5)
