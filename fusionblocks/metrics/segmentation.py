"""Segmentation quality, for networks with a segmentation head and for segmenters run on fused pictures."""

from __future__ import annotations

import torch
from torch import Tensor

from fusionblocks.image.labels import VOID, check_class_count


def mean_iou(prediction: Tensor, labels: Tensor, num_classes: int, *, ignore_index: int | None = None) -> Tensor:
    r"""Return mIoU, the intersection over union of predicted and true regions, averaged over the classes.

    Pixels are counted over all the pictures given, as tables do it, not per picture:

    .. math::
        \mathrm{mIoU} = \operatorname*{mean}_{c} \frac{\mathrm{TP}_c}{\mathrm{TP}_c + \mathrm{FP}_c + \mathrm{FN}_c}

    over the classes that occur in ``prediction`` or ``labels``; the background is one of them. Pixels of no class,
    labelled 255, do not count. Range: 0 to 1. Higher is better. Computed by torchmetrics (``pip install
    fusionblocks[metrics]``), whose ``MulticlassJaccardIndex(num_classes, ignore_index=255)`` gives the same number over
    a stream of batches.

    Args:
        prediction: Classes ``(B, H, W)``, or the scores of a segmentation head ``(B, num_classes, H, W)``.
        labels: True classes ``(B, H, W)``, integers below ``num_classes``, or 255 for no class.
        num_classes: Number of classes, from 2 to 255.
        ignore_index: A further label whose pixels do not count; a class of that number has no part in the mean.

    Returns:
        A scalar, float64, exact to six digits.

    Raises:
        ImportError: torchmetrics is not installed.
        TypeError: ``labels``, or ``prediction`` as classes, are not integers.
        ValueError: The shapes do not match, a class is out of range, or no pixel counts.

    Reference:
        The Pascal Visual Object Classes Challenge: A Retrospective (2015).

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import mean_iou
        >>> labels = torch.tensor([[[0, 0, 1, 1]]])
        >>> mean_iou(torch.tensor([[[0, 1, 1, 1]]]), labels, num_classes=2)  # 1 / 2 and 2 / 3
        tensor(0.5833, dtype=torch.float64)
    """
    try:
        from torchmetrics.functional.classification import multiclass_jaccard_index
    except ImportError as error:
        raise ImportError("mean_iou needs torchmetrics: pip install fusionblocks[metrics]") from error
    predicted = _classes(prediction, labels, num_classes)
    ignored = {VOID} if ignore_index is None else {VOID, ignore_index}
    labels = labels.long()
    _check_range("labels", labels, num_classes, ignored)
    known = labels != VOID
    predicted, labels = predicted[known].long(), labels[known]
    if bool((labels == (VOID if ignore_index is None else ignore_index)).all()):
        none = " or ".join(map(str, sorted(ignored)))
        raise ValueError(f"labels must have a pixel that counts, got {none} everywhere")
    score = multiclass_jaccard_index(predicted, labels, num_classes, ignore_index=ignore_index, validate_args=False)
    return score.to(torch.float64)


def _classes(prediction: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return the predicted classes ``(B, H, W)``, after all checks of shapes."""
    if not isinstance(num_classes, int) or num_classes < 2:
        raise ValueError(f"num_classes must be a number of at least 2, got {num_classes!r}")
    check_class_count("num_classes", num_classes)
    for name, x, ranks in (("prediction", prediction, (3, 4)), ("labels", labels, (3,))):
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(x).__name__}")
        if x.ndim not in ranks or x.numel() == 0:
            shapes = f"(B, H, W) or (B, {num_classes}, H, W)" if 4 in ranks else "(B, H, W)"
            raise ValueError(f"{name} must have shape {shapes}, got {tuple(x.shape)}")
    if labels.is_floating_point() or labels.is_complex():
        raise TypeError(f"labels must be integers, got {labels.dtype}")
    if prediction.ndim == 4:
        if prediction.shape[1] != num_classes:
            raise ValueError(f"prediction must have {num_classes} channels of scores, got {tuple(prediction.shape)}")
        if not bool(torch.isfinite(prediction).all()):
            raise ValueError("prediction must have finite scores, got NaN or infinite ones")
        prediction = prediction.argmax(dim=1)
    elif prediction.is_floating_point() or prediction.is_complex():
        raise TypeError(f"prediction must be integer classes or scores (B, classes, H, W), got {prediction.dtype}")
    if prediction.shape != labels.shape:
        raise ValueError(
            f"prediction and labels must have the same size, got {tuple(prediction.shape)} and {tuple(labels.shape)}"
        )
    _check_range("prediction", prediction, num_classes, set())
    return prediction


def _check_range(name: str, classes: Tensor, num_classes: int, ignored: set[int]) -> None:
    wrong = (classes < 0) | (classes >= num_classes)
    for label in ignored:
        wrong = wrong & (classes != label)
    if bool(wrong.any()):
        kept = "".join(f" or {label}" for label in sorted(ignored) if label >= num_classes)
        raise ValueError(f"{name} must be in 0..{num_classes - 1}{kept}, got {int(classes[wrong][0])}")
