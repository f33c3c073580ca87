"""Labels: cross entropies of a segmentation, of its hard pixels, and of two-class maps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionblocks._support.checks import check_number, check_whole
from fusionblocks.image.labels import VOID, check_class_count, with_void
from fusionblocks.losses._inputs import check_same_size, full_precision
from fusionblocks.losses._modules import as_module

#: PSFusion's weights of background and foreground of the binary map.
BINARY_WEIGHTS = (1.4548, 19.8962)


@full_precision
def cross_entropy_loss(segmentation: Tensor, labels: Tensor, *, ignore_index: int | None = None) -> Tensor:
    r"""Return the cross entropy of class logits, averaged over the labelled pixels.

    .. math:: -\operatorname{mean}_{p} \log \operatorname{softmax}(Z_p)_{y_p}

    It is 0 where no pixel is labelled.

    Args:
        segmentation: Class logits ``(B, classes, H, W)``.
        labels: ``(B, H, W)`` or ``(B, 1, H, W)``, integers from 0 to ``classes - 1``, or 255 for no class.
        ignore_index: A further label of pixels to leave out, beside 255.

    Returns:
        A scalar, at least 0.

    Raises:
        TypeError: An argument is not a tensor or has an unfit dtype.
        ValueError: The shapes do not fit, or a label is not a class (found on the CPU; a GPU is not made to wait).

    Reference:
        *SGAFusion* (2025), its training script.

    Example:
        >>> import torch
        >>> from fusionblocks.losses import cross_entropy_loss
        >>> cross_entropy_loss(torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64))  # log 4
        tensor(1.3863)
    """
    labels = _class_labels("segmentation", segmentation, labels, ignore_index)
    losses = F.cross_entropy(segmentation, labels, ignore_index=VOID, reduction="sum")
    return losses / (labels != VOID).sum().clamp_min(1)


@full_precision
def ohem_cross_entropy_loss(
    segmentation: Tensor,
    labels: Tensor,
    *,
    threshold: float = 0.75,
    n_min: int = 65536,
    ignore_index: int | None = None,
) -> Tensor:
    r"""Return the cross entropy of the hard pixels: those whose class has less than the threshold's probability.

    .. math:: \operatorname{mean}\,\{\ell_p : \ell_p > -\log t\}, \text{ or of the } n_{\min} \text{ largest } \ell_p
        \text{ if these are fewer}

    Pixels of no class never count: where fewer than ``n_min`` are labelled, all of these are averaged, and the loss is
    0 where none is. The published code lets pixels of no class fill up the ``n_min``, with :math:`\ell_p = 0`, and
    cannot take a batch of fewer than ``n_min`` pixels; where it has enough labelled ones, both agree. The choice of
    pixels is over the batch and has no derivative.

    Args:
        segmentation: Class logits ``(B, classes, H, W)``.
        labels: ``(B, H, W)`` or ``(B, 1, H, W)``, integers from 0 to ``classes - 1``, or 255 for no class.
        threshold: Probability below which a pixel is hard, in (0, 1].
        n_min: The least number of pixels to average, of the whole batch; the paper's is one sixteenth of a batch of 16
            pictures of 256x256 pixels.
        ignore_index: A further label of pixels to leave out, beside 255.

    Returns:
        A scalar, at least 0.

    Raises:
        TypeError: An argument is not a tensor or has an unfit dtype.
        ValueError: The shapes do not fit, an option is out of range, or a label is not a class (found on the CPU; a GPU
            is not made to wait).

    Reference:
        *PSFusion* (2023), ``OhemCELoss``.

    Example:
        >>> import torch
        >>> from fusionblocks.losses import ohem_cross_entropy_loss
        >>> logits = torch.tensor([[4.0, 0.0], [0.0, 0.0]]).view(1, 2, 1, 2)  # an easy pixel, one undecided
        >>> ohem_cross_entropy_loss(logits, torch.zeros(1, 1, 2, dtype=torch.int64), n_min=1)  # log 2
        tensor(0.6931)
    """
    labels = _class_labels("segmentation", segmentation, labels, ignore_index)
    check_number("threshold", threshold, above=0, most=1)
    check_whole("n_min", n_min, 1)
    losses = F.cross_entropy(segmentation, labels, ignore_index=VOID, reduction="none").flatten()
    losses = losses.sort(descending=True).values
    # as tensors, so that a GPU need not be waited for
    least = (labels != VOID).sum().clamp_max(n_min)
    count = torch.maximum((losses > -math.log(threshold)).sum(), least)
    chosen = torch.arange(losses.numel(), device=losses.device) < count
    return torch.where(chosen, losses, 0).sum() / count.clamp_min(1)


@full_precision
def two_class_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    positive_weights: Sequence[float] | None = None,
    ignore_index: int | None = None,
) -> Tensor:
    r"""Return the binary cross entropy of both channels of a two-class map.

    .. math::
        -\operatorname{mean}_{c, p} \bigl[w_c\, y_{cp} \log s(Z_{cp}) + (1 - y_{cp}) \log(1 - s(Z_{cp}))\bigr]

    with the one-hot labels :math:`y` and the sigmoid :math:`s`: the two channels are two classifiers, no softmax. It is
    0 where no pixel is labelled.

    Args:
        logits: ``(B, 2, H, W)``: background or interior, and foreground or boundary.
        labels: ``(B, 1, H, W)`` or ``(B, H, W)``, 0 or 1, or 255 for no class: bool, integers or float.
        positive_weights: The weights :math:`w` of both channels, 1 if not given; the paper's for the binary map are
            1.4548 and 19.8962.
        ignore_index: A further label of pixels to leave out, beside 255.

    Returns:
        A scalar, at least 0.

    Raises:
        TypeError: An argument is not a tensor or has an unfit dtype.
        ValueError: The shapes do not fit, the weights are not two positive numbers, or a label is not 0, 1 or
            255 (found on the CPU; a GPU is not made to wait).

    Reference:
        *PSFusion* (2023), its training script.

    Example:
        >>> import torch
        >>> from fusionblocks.losses import two_class_loss
        >>> two_class_loss(torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4))  # log 2
        tensor(0.6931)
    """
    labels = _labels("logits", logits, labels)
    if logits.shape[1] != 2:
        raise ValueError(f"logits must have shape (B, 2, H, W), got {tuple(logits.shape)}")
    labels = with_void(labels.to(logits.dtype), ignore_index)
    known = labels != VOID
    if _readable(labels):
        wrong = labels[known & (labels != 0) & (labels != 1)]
        if len(wrong):
            raise ValueError(f"labels must be 0 or 1 for two classes, or {VOID} for none, got {wrong[0].item():g}")
    foreground = torch.where(known, labels, 0)
    weights = None
    if positive_weights is not None:
        weights = _two_weights(positive_weights, logits)
    losses = F.binary_cross_entropy_with_logits(
        logits, torch.stack((1 - foreground, foreground), dim=1), pos_weight=weights, reduction="none"
    )
    return torch.where(known[:, None], losses, 0).sum() / (2 * known.sum()).clamp_min(1)


CrossEntropyLoss = as_module("CrossEntropyLoss", cross_entropy_loss)
OHEMCrossEntropyLoss = as_module("OHEMCrossEntropyLoss", ohem_cross_entropy_loss)
TwoClassLoss = as_module("TwoClassLoss", two_class_loss)


def _class_labels(name: str, logits: Tensor, labels: Tensor, ignore_index: int | None) -> Tensor:
    """Return labels as int64 ``(B, H, W)`` after all checks, ``VOID`` where they are to be left out."""
    labels = _labels(name, logits, labels)
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise TypeError(f"labels must be integers, got {labels.dtype}")
    classes = logits.shape[1]
    check_class_count(f"the classes of {name}", classes)
    labels = with_void(labels.long(), ignore_index)
    if _readable(labels):
        wrong = labels[(labels != VOID) & ((labels < 0) | (labels >= classes))].unique().tolist()
        if wrong:
            some = ", ".join(map(str, wrong[:5])) + (", ..." if len(wrong) > 5 else "")
            raise ValueError(f"labels must be from 0 to {classes - 1} or {VOID} (ignored), got {some}")
    return labels


def _labels(name: str, logits: Tensor, labels: Tensor) -> Tensor:
    """Return labels ``(B, H, W)`` of the size of the logits."""
    for what, x in ((name, logits), ("labels", labels)):
        if not isinstance(x, Tensor):
            raise TypeError(f"{what} must be a tensor, got {type(x).__name__}")
    if logits.ndim != 4 or logits.numel() == 0:
        raise ValueError(f"{name} must have shape (B, classes, H, W), got {tuple(logits.shape)}")
    if not logits.is_floating_point():
        raise TypeError(f"{name} must be of a floating-point dtype, got {logits.dtype}")
    given = labels
    if labels.ndim == 4 and labels.shape[1] == 1:
        labels = labels.squeeze(1)
    if labels.ndim != 3:
        raise ValueError(f"labels must have shape (B, H, W) or (B, 1, H, W), got {tuple(given.shape)}")
    check_same_size(name, logits, "labels", labels)
    return labels


def _readable(labels: Tensor) -> bool:
    """Whether looking at the values costs no waiting for a device and no break of a compiled graph."""
    return labels.device.type == "cpu" and not torch.compiler.is_compiling()


def _two_weights(values: Sequence[float], logits: Tensor) -> Tensor:
    if len(values) != 2:
        raise ValueError(f"positive_weights must be two numbers, got {len(values)}")
    for value in values:
        check_number("positive_weights", value, above=0)
    return logits.new_tensor(values).view(2, 1, 1)
