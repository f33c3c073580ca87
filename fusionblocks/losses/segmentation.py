"""Labels: cross entropies of a segmentation, of its hard pixels, and of two-class maps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionblocks.losses._inputs import check_number, check_same_size, check_whole, full_precision

#: The label of pixels that belong to no class.
IGNORED = 255
#: PSFusion's weights of background and foreground of the binary map.
BINARY_WEIGHTS = (1.4548, 19.8962)


@full_precision
def cross_entropy_loss(segmentation: Tensor, labels: Tensor, *, ignore_index: int = IGNORED) -> Tensor:
    r"""Return the cross entropy of class logits, averaged over the labelled pixels.

    .. math:: -\operatorname{mean}_{p} \log \operatorname{softmax}(Z_p)_{y_p}

    It is 0 where no pixel is labelled.

    Args:
        segmentation: Class logits ``(B, classes, H, W)``.
        labels: ``(B, H, W)`` or ``(B, 1, H, W)``, integers from 0 to ``classes - 1``, or ``ignore_index``.
        ignore_index: The label of pixels to leave out.

    Returns:
        A scalar, at least 0.

    Raises:
        TypeError: An argument is no tensor or of an unfit dtype.
        ValueError: The shapes do not fit, or a label is no class (found on the CPU; a GPU is not made to wait).

    Reference:
        *SGAFusion* (2025), its training script.

    Example:
        >>> import torch
        >>> from fusionblocks.losses import cross_entropy_loss
        >>> cross_entropy_loss(torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64))  # log 4
        tensor(1.3863)
    """
    labels = _class_labels("segmentation", segmentation, labels, ignore_index)
    losses = F.cross_entropy(segmentation, labels, ignore_index=ignore_index, reduction="sum")
    return losses / (labels != ignore_index).sum().clamp_min(1)


@full_precision
def ohem_cross_entropy_loss(
    segmentation: Tensor,
    labels: Tensor,
    *,
    threshold: float = 0.75,
    n_min: int = 65536,
    ignore_index: int = IGNORED,
) -> Tensor:
    r"""Return the cross entropy of the hard pixels: those whose class has less than the threshold's probability.

    .. math:: \operatorname{mean}\,\{\ell_p : \ell_p > -\log t\}, \text{ or of the } n_{\min} \text{ largest } \ell_p
        \text{ if these are fewer}

    Pixels to ignore have :math:`\ell_p = 0` and, as published, count among the ``n_min`` if there are not as many
    others. A batch of fewer than ``n_min`` pixels, which the published code cannot take, is averaged whole. The choice
    of pixels is over the batch and has no derivative.

    Args:
        segmentation: Class logits ``(B, classes, H, W)``.
        labels: ``(B, H, W)`` or ``(B, 1, H, W)``, integers from 0 to ``classes - 1``, or ``ignore_index``.
        threshold: Probability below which a pixel is hard, in (0, 1].
        n_min: The least number of pixels to average, of the whole batch; the paper's is one sixteenth of a batch of 16
            pictures of 256x256 pixels.
        ignore_index: The label of pixels to leave out.

    Returns:
        A scalar, at least 0.

    Raises:
        TypeError: An argument is no tensor or of an unfit dtype.
        ValueError: The shapes do not fit, an option is out of range, or a label is no class (found on the CPU; a GPU
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
    check_number("threshold", threshold, 0, 1)
    check_whole("n_min", n_min, 1)
    losses = F.cross_entropy(segmentation, labels, ignore_index=ignore_index, reduction="none").flatten()
    losses = losses.sort(descending=True).values
    count = (losses > -math.log(threshold)).sum().clamp_min(min(n_min, losses.numel()))  # without waiting for a GPU
    chosen = torch.arange(losses.numel(), device=losses.device) < count
    return torch.where(chosen, losses, 0).sum() / count


@full_precision
def two_class_loss(logits: Tensor, labels: Tensor, *, positive_weights: Sequence[float] | None = None) -> Tensor:
    r"""Return the binary cross entropy of both channels of a two-class map.

    .. math::
        -\operatorname{mean}_{c, p} \bigl[w_c\, y_{cp} \log s(Z_{cp}) + (1 - y_{cp}) \log(1 - s(Z_{cp}))\bigr]

    with the one-hot labels :math:`y` and the sigmoid :math:`s`: the two channels are two classifiers, no softmax.

    Args:
        logits: ``(B, 2, H, W)``: background or interior, and foreground or boundary.
        labels: ``(B, 1, H, W)`` or ``(B, H, W)``, 0 or 1: bool, integers or float.
        positive_weights: The weights :math:`w` of both channels, 1 if not given; the paper's for the binary map are
            1.4548 and 19.8962.

    Returns:
        A scalar, at least 0.

    Raises:
        TypeError: An argument is no tensor or of an unfit dtype.
        ValueError: The shapes do not fit, the weights are no two positive numbers, or a label is neither 0 nor 1
            (found on the CPU; a GPU is not made to wait).

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
    if _readable(labels) and not bool(((labels == 0) | (labels == 1)).all()):
        raise ValueError("labels must be 0 or 1 for two classes, got other values")
    foreground = labels.to(logits.dtype)
    weights = None
    if positive_weights is not None:
        weights = _two_weights(positive_weights, logits)
    return F.binary_cross_entropy_with_logits(
        logits, torch.stack((1 - foreground, foreground), dim=1), pos_weight=weights
    )


class CrossEntropyLoss(nn.Module):
    """Module of :func:`cross_entropy_loss`.

    Args:
        ignore_index: The label of pixels to leave out.

    Example:
        >>> import torch
        >>> from fusionblocks.losses import CrossEntropyLoss
        >>> CrossEntropyLoss()(torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64))
        tensor(1.3863)
    """

    def __init__(self, *, ignore_index: int = IGNORED) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def forward(self, segmentation: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, see :func:`cross_entropy_loss`."""
        return cross_entropy_loss(segmentation, labels, ignore_index=self.ignore_index)


class OHEMCrossEntropyLoss(nn.Module):
    """Module of :func:`ohem_cross_entropy_loss`.

    Args:
        threshold: Probability below which a pixel is hard, in (0, 1].
        n_min: The least number of pixels to average, of the whole batch.
        ignore_index: The label of pixels to leave out.

    Example:
        >>> import torch
        >>> from fusionblocks.losses import OHEMCrossEntropyLoss
        >>> OHEMCrossEntropyLoss(n_min=2)(torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64))
        tensor(1.3863)
    """

    def __init__(self, *, threshold: float = 0.75, n_min: int = 65536, ignore_index: int = IGNORED) -> None:
        super().__init__()
        self.threshold, self.n_min, self.ignore_index = threshold, n_min, ignore_index

    def forward(self, segmentation: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, see :func:`ohem_cross_entropy_loss`."""
        return ohem_cross_entropy_loss(
            segmentation, labels, threshold=self.threshold, n_min=self.n_min, ignore_index=self.ignore_index
        )


class TwoClassLoss(nn.Module):
    """Module of :func:`two_class_loss`.

    Args:
        positive_weights: The weights of both channels where they are labelled, 1 if not given.

    Example:
        >>> import torch
        >>> from fusionblocks.losses import TwoClassLoss
        >>> TwoClassLoss()(torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4))
        tensor(0.6931)
    """

    def __init__(self, *, positive_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.positive_weights = positive_weights

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, see :func:`two_class_loss`."""
        return two_class_loss(logits, labels, positive_weights=self.positive_weights)


def _class_labels(name: str, logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """Return labels as int64 ``(B, H, W)`` after all checks."""
    labels = _labels(name, logits, labels)
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise TypeError(f"labels must be integers, got {labels.dtype}")
    labels, classes = labels.long(), logits.shape[1]
    if _readable(labels):
        wrong = labels[(labels != ignore_index) & ((labels < 0) | (labels >= classes))].unique().tolist()
        if wrong:
            some = ", ".join(map(str, wrong[:5])) + (", ..." if len(wrong) > 5 else "")
            raise ValueError(f"labels must be from 0 to {classes - 1} or {ignore_index} (ignored), got {some}")
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
        check_number("positive_weights", value, 0)
    return logits.new_tensor(values).view(2, 1, 1)
